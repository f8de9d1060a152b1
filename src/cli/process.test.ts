/**
 * `bpfhv serve` and `backend` as processes: signals, what they leave behind, whom they let in, who
 * stops them.
 */
import assert from "node:assert/strict";
import { type ChildProcess, type SpawnOptions, spawn } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
} from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { threadStates } from "../../test/support/os.ts";
import { changeSpec, statusOf } from "../control/client.ts";
import { controlPath } from "../control/socket-path.ts";

const MAIN = fileURLToPath(new URL("./main.js", import.meta.url));
const folder = mkdtempSync(join(tmpdir(), "bpfhv-process-"));
const children = new Set<ChildProcess>();
const isRoot = process.getuid?.() === 0;
const FULL = process.env.BPFHV_FULL === "1";
let names = 0;
const newSocket = () => join(folder, `s${names++}.sock`);

after(() => {
  for (const child of children) child.kill("SIGKILL");
  rmSync(folder, { recursive: true, force: true });
});

interface Exit {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly err: string;
}

interface Running {
  readonly child: ChildProcess;
  readonly ended: Promise<Exit>;
  readonly err: () => string;
}

function run(words: readonly string[], options: SpawnOptions = {}): Running {
  // Were a debugger opened, it would have a port of its own: another process may have the usual
  // one.
  const child = spawn(process.execPath, ["--inspect-port=0", MAIN, ...words], {
    stdio: ["ignore", "ignore", "pipe"],
    ...options,
  });
  children.add(child);
  let err = "";
  child.stderr?.on("data", (chunk) => {
    err += chunk;
  });
  const ended = new Promise<Exit>((resolve) => {
    child.once("close", (code, signal) => {
      children.delete(child);
      resolve({ code, signal, err });
    });
  });
  return { child, ended, err: () => err };
}

async function until(what: string, holds: () => unknown): Promise<void> {
  for (let n = 0; !(await Promise.resolve(holds()).catch(() => false)); n++) {
    assert.ok(n < 4000, `${what} within 20 s`);
    await sleep(5);
  }
}

const status = (socket: string) => statusOf(socket);

async function serve(words: readonly string[] = [], options: SpawnOptions = {}) {
  const socket = newSocket();
  const running = run(["serve", "--socket", socket, ...words], options);
  await until("an answer", () => status(socket));
  return { ...running, socket };
}

/** Sockets of the process that listen on TCP: state 0A, field 3; inode, field 9. */
function tcpListeners(pid: number): string[] {
  const tables = ["tcp", "tcp6"].map((name) => readFileSync(`/proc/${pid}/net/${name}`, "utf8"));
  const rows = tables.flatMap((text) => text.split("\n")).map((row) => row.trim().split(/\s+/));
  const listening = new Set(rows.filter((row) => row[3] === "0A").map((row) => row[9]));
  return readdirSync(`/proc/${pid}/fd`)
    .map((fd) => {
      try {
        return readlinkSync(`/proc/${pid}/fd/${fd}`);
      } catch {
        return "";
      }
    })
    .filter((target) => listening.has(/^socket:\[(\d+)\]$/.exec(target)?.[1] ?? ""));
}

/** As many requests in one connection, each of which is a line in the log. */
function setPorts(socket: string, requests: number): Promise<void> {
  const change = (n: number) => {
    const body = JSON.stringify({ port: n % 2 === 0 ? "null" : "sink" });
    return `PATCH /v1/nic HTTP/1.1\r\nhost: x\r\ncontent-length: ${body.length}\r\n\r\n${body}`;
  };
  return new Promise((resolve, reject) => {
    let answers = 0;
    const client = connect(controlPath(socket), () => client.write(change(0)));
    client.setTimeout(20_000, () => client.destroy(new Error("no more answers")));
    client.once("error", reject);
    client.on("data", (chunk) => {
      if (!chunk.toString("latin1").endsWith("}\n")) return;
      answers++;
      if (answers === requests) client.destroy();
      else client.write(change(answers));
    });
    client.once("close", () => {
      if (answers === requests) resolve();
      else reject(new Error(`${answers} answers`));
    });
  });
}

const LONG_RUNNING: Record<string, (socket: string) => string[]> = {
  serve: (socket) => ["serve", "--socket", socket],
  backend: (socket) => ["backend", "-p", socket, "-b", "sink", "--reconnect"],
};

for (const [name, words] of Object.entries(LONG_RUNNING)) {
  test(`${name} opens no debugger and survives when SIGUSR1 comes`, async () => {
    const socket = newSocket();
    const { child, ended, err } = run(words(socket));
    await until("an answer", () => status(socket));
    for (let n = 0; n < 3; n++) child.kill("SIGUSR1");
    await sleep(1000);
    assert.deepEqual(tcpListeners(child.pid as number), []);
    assert.doesNotMatch(err(), /[Dd]ebugger|[Ii]nspector/);
    await status(socket);
    child.kill("SIGTERM");
    assert.equal((await ended).code, 0);
  });
}

test("top opens no debugger when SIGUSR1 comes", async () => {
  const { child, ended, err } = run(["top", "--json", "--interval", "0.1", newSocket()], {
    stdio: ["ignore", "pipe", "pipe"],
  });
  await new Promise((resolve) => child.stdout?.once("data", resolve));
  child.kill("SIGUSR1");
  await sleep(1000);
  assert.deepEqual(tcpListeners(child.pid as number), []);
  assert.doesNotMatch(err(), /[Dd]ebugger|[Ii]nspector/);
  child.kill("SIGTERM");
  await ended;
});

for (const signal of ["SIGINT", "SIGHUP", "SIGQUIT"] as const) {
  test(`serve and backend end in order and leave nothing behind when ${signal} comes`, async () => {
    const pidFile = join(folder, `${signal}.pid`);
    const { child, ended, socket } = await serve(["--pid-file", pidFile]);
    assert.equal(readFileSync(pidFile, "utf8"), `${child.pid}`);
    const at = newSocket();
    const backend = run(["backend", "-p", at, "-b", "sink", "--reconnect"]);
    await until("an answer", () => status(at));
    for (const each of [child, backend.child]) each.kill(signal);
    const exits = await Promise.all([ended, backend.ended]);
    for (const exit of exits) assert.deepEqual([exit.code, exit.signal], [0, null], exit.err);
    assert.match(exits[0].err, new RegExp(`${signal}: stopping[^]*"stopped"`));
    for (const path of [socket, controlPath(socket), pidFile, controlPath(at)]) {
      assert.equal(existsSync(path), false, path);
    }
  });
}

test("serve leaves nothing behind when it is stopped as soon as a socket shows", async () => {
  const one = async (shows: (path: string) => string) => {
    const socket = newSocket();
    const { child, ended } = run(["serve", "--socket", socket]);
    await until("the socket", () => existsSync(shows(socket)));
    child.kill("SIGTERM");
    const exit = await ended;
    assert.deepEqual([exit.code, exit.signal], [0, null], exit.err);
    assert.deepEqual([existsSync(socket), existsSync(controlPath(socket))], [false, false]);
  };
  for (let n = 0; n < (FULL ? 20 : 2); n++) {
    await Promise.all([one((path) => path), one(controlPath)]);
  }
});

test("serve leaves nothing behind when it is stopped at any moment of its start", async () => {
  const one = async (delay: number) => {
    const socket = newSocket();
    const pidFile = `${socket}.pid`;
    const { child, ended } = run(["serve", "--socket", socket, "--pid-file", pidFile]);
    await sleep(delay);
    child.kill("SIGTERM");
    await ended;
    for (const path of [socket, controlPath(socket), pidFile]) {
      assert.equal(existsSync(path), false, `${path} after ${delay} ms`);
    }
  };
  const step = FULL ? 10 : 80;
  for (let delay = 0; delay < 800; delay += 2 * step) {
    await Promise.all([one(delay), one(delay + step)]);
  }
});

test("serve leaves nothing behind when pid file or control socket fail", async () => {
  const socket = newSocket();
  const wrong = await run(["serve", "--socket", socket, "--pid-file", "/nonexistent/p"]).ended;
  assert.equal(wrong.code, 1);
  assert.match(wrong.err, /^bpfhv: cannot write the pid file: ENOENT/m);
  assert.doesNotMatch(wrong.err, / at /);
  assert.deepEqual([existsSync(socket), existsSync(controlPath(socket))], [false, false]);
  mkdirSync(controlPath(socket));
  const blocked = await run(["serve", "--socket", socket]).ended;
  assert.equal(blocked.code, 1);
  assert.match(blocked.err, /^bpfhv: control socket: .*not a socket is in the way/m);
  assert.equal(existsSync(socket), false);
  assert.ok(statSync(controlPath(socket)).isDirectory());
  // Room for the socket, and none for the suffix.
  const long = join(folder, "x".repeat(105 - folder.length - 1));
  const cut = await run(["serve", "--socket", long]).ended;
  assert.equal(cut.code, 2);
  assert.match(cut.err, /at most 103 bytes, and this one 105/);
  assert.deepEqual(
    readdirSync(folder).filter((name) => name.startsWith("xx")),
    [],
  );
});

test("the sockets are their owner's unless a group or a mode is given", {
  skip: !isRoot,
}, async () => {
  const modes: [string[], number, number, number][] = [
    [[], 0o600, 0, 0],
    [["--socket-group", "12345", "--socket-mode", "640"], 0o640, 0, 12345],
    [["--user", "nobody", "--socket-group", "nogroup"], 0o660, 65534, 65534],
  ];
  for (const [words, mode, uid, gid] of modes) {
    const { child, ended, socket } = await serve(words);
    for (const path of [socket, controlPath(socket)]) {
      const stat = statSync(path);
      assert.deepEqual([stat.mode & 0o777, stat.uid, stat.gid], [mode, uid, gid], words.join(" "));
    }
    child.kill("SIGTERM");
    await ended;
  }
  const at = newSocket();
  const backend = run(["backend", "-p", at, "-b", "sink", "--reconnect", "--socket-mode", "0660"]);
  await until("an answer", () => status(at));
  assert.equal(statSync(controlPath(at)).mode & 0o777, 0o660);
  backend.child.kill("SIGTERM");
  await backend.ended;
});

test("backend with --user leaves no thread a way to gain privileges", {
  skip: !isRoot,
}, async () => {
  const at = newSocket();
  const words = ["backend", "-p", at, "-b", "sink", "--reconnect", "--user", "nobody"];
  const { child, ended, err } = run(words);
  await until("an answer", () => status(at));
  for (const thread of threadStates(child.pid!)) {
    for (const line of [/^Uid:\t65534\t65534\t/m, /^NoNewPrivs:\t1$/m, /^CapPrm:\t0+$/m]) {
      assert.match(thread, line);
    }
  }
  child.kill("SIGTERM");
  assert.equal((await ended).code, 0, err());
});

test("serve exits with status 2 when the socket's group or mode is invalid", async () => {
  for (const [words, message] of [
    [["--socket-group", "no-such-group"], /there is no such group/],
    [["--socket-mode", "0066"], /use 0600, 0660/],
    [["--socket-mode", "777"], /use 0600, 0660/],
    [["--socket-mode", "rw"], /use 0600, 0660/],
  ] as const) {
    const { code, err } = await run(["serve", "--socket", newSocket(), ...words]).ended;
    assert.equal(code, 2, err);
    assert.match(err, message);
  }
});

/** The shell that npx starts, with a server as its child. */
async function underShell(env: object, words: string[]) {
  const socket = newSocket();
  const shell = spawn("sh", ["-c", '"$0" "$@"; true', process.execPath, MAIN, ...words, socket], {
    ...{ stdio: "ignore", env: { ...process.env, ...env } },
  });
  children.add(shell);
  await until("an answer", () => status(socket));
  const { pid } = (await status(socket)) as { pid: number };
  shell.kill("SIGTERM");
  return { socket, pid };
}

test("serve ends with the shell that npx started, also as another user", async () => {
  const drops = isRoot ? [[], ["--user", "nobody"]] : [[]];
  for (const words of drops) {
    const npx = { npm_lifecycle_event: "npx" };
    const { socket, pid } = await underShell(npx, ["serve", ...words, "--socket"]);
    await until("its end", () => !existsSync(`/proc/${pid}`));
    if (words.length === 0) assert.equal(existsSync(socket), false);
  }
});

test("serve outlives any other shell", async () => {
  const { socket, pid } = await underShell({ npm_lifecycle_event: "" }, ["serve", "--socket"]);
  await sleep(300);
  await status(socket);
  process.kill(pid, "SIGTERM");
  await until("its end", () => !existsSync(socket));
});

test("serve keeps running when its log's reader stops, and reports the lost lines", async () => {
  const { child, ended, socket, err } = await serve();
  child.stderr?.pause();
  // More than a pipe and the server's own buffer hold: 4000 lines of 110 bytes and more.
  await setPorts(socket, 4000);
  await status(socket);
  child.stderr?.resume();
  await until("what was missed", () => /\d+ lines of the log are lost/.test(err()));
  const before = err().length;
  await changeSpec(socket, { port: "source" });
  await until("later lines", () => /port: \w+ -> source/.test(err().slice(before - 100)));
  for (const line of err().trim().split("\n")) assert.equal(JSON.parse(line).nic, socket);
  child.stderr?.pause();
  child.kill("SIGTERM");
  await until("its end", () => child.exitCode !== null);
  child.stderr?.resume();
  assert.equal((await ended).code, 0);
});

test("serve ends in order when its log's reader has exited", async () => {
  const { child, ended, socket } = await serve();
  child.stderr?.destroy();
  await changeSpec(socket, { port: "source" });
  await status(socket);
  child.kill("SIGTERM");
  assert.equal((await ended).code, 0);
});

/** `bpfhv top` beside servers that are none of ours: each costs its own row at most. */
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { chmodSync, existsSync, mkdtempSync, rmSync } from "node:fs";
import { createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { atMost } from "../../test/support/os.ts";
import { statusOf } from "../control/client.ts";

const MAIN = fileURLToPath(new URL("./main.js", import.meta.url));
const folder = mkdtempSync(join(tmpdir(), "bpfhv-top-"));
const NAME = `top-${process.pid}.sock`;
const socket = join(folder, NAME);
const isRoot = process.getuid?.() === 0;
const servers: Server[] = [];
const sockets = new Set<Socket>();
const children = new Set<ChildProcess>();

function background(words: readonly string[], options: object = {}): ChildProcess {
  const child = spawn(process.execPath, words, { stdio: "ignore", ...options });
  children.add(child);
  child.once("exit", () => children.delete(child));
  return child;
}

const HEAD = "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n";
const HOSTILE: Record<string, (socket: Socket) => void> = {
  silent: () => {},
  dripping: (each) => {
    each.write(HEAD);
    const timer = setInterval(() => each.write(" "), 30);
    each.once("close", () => clearInterval(timer));
  },
  flooding: (each) => {
    each.write(HEAD);
    const more = () => {
      while (!each.destroyed && each.write("x".repeat(65536)));
    };
    each.on("drain", more);
    more();
  },
  lying: (each) =>
    each.end(`${HEAD}{"status":{"queues":[{"counters":null}],"socket":{"toString":5}}}`),
  escaping: (each) => each.end(`${HEAD}{"error":"\\u001b[2J\\u009b31mboo\\u0007"}`),
};

before(async () => {
  background([MAIN, "serve", "--socket", NAME, "--net", "source"], { cwd: folder });
  for (const [name, serve] of Object.entries(HOSTILE)) {
    const server = createServer((each) => {
      sockets.add(each);
      each.on("error", () => {});
      serve(each);
    });
    servers.push(server);
    await new Promise<void>((resolve) => server.listen(join(folder, `${name}.ctl`), resolve));
  }
  await until(() => statusOf(socket));
});

after(() => {
  for (const child of children) child.kill("SIGKILL");
  for (const each of sockets) each.destroy();
  for (const server of servers) server.close();
  rmSync(folder, { recursive: true, force: true });
});

async function until(holds: () => Promise<unknown> | boolean): Promise<void> {
  for (let n = 0; ; n++) {
    const result = await Promise.resolve(holds()).catch(() => false);
    if (result !== false) return;
    assert.ok(n < 400, "within 20 s");
    await sleep(50);
  }
}

async function top(...words: string[]) {
  const child = background([MAIN, "top", "--interval", "0.1", ...words], {
    stdio: ["ignore", "pipe", "pipe"],
  });
  let out = "";
  let err = "";
  child.stdout?.on("data", (chunk) => {
    out += chunk;
  });
  child.stderr?.on("data", (chunk) => {
    err += chunk;
  });
  const status = await new Promise<number | null>((resolve) => child.once("close", resolve));
  return { status, out, err };
}

test("shows a NIC whose socket was given as a relative path, whoever else listens", async () => {
  const begun = performance.now();
  const { status, out } = await top("--count", "4");
  assert.equal(status, 0);
  assert.ok(performance.now() - begun < atMost(10_000), "no answer is waited for");
  assert.equal(out.split(NAME).length - 1, 4, out);
  assert.match(out, /rx0 +[\d.]/);
  assert.doesNotMatch(out.replaceAll("\n", ""), /[\p{Cc}\p{Cf}]/u);
  assert.match(out, /flooding: its answer is longer/);
  assert.match(out, /dripping: timed out after/);
  assert.match(out, /escaping: \?\[2J\?31mboo\?/);
  assert.match(out, /lying: its answer is not a NIC's status/);
  assert.ok(out.length < 120_000, `${out.length} characters`);
});

test("asks no server of another user unless it is named", { skip: !isRoot }, async () => {
  const theirs = join(folder, "theirs");
  chmodSync(folder, 0o777);
  const code = `require("net").createServer((each) => each.on("data", () => each.end("{}\\n")))
    .listen(${JSON.stringify(`${theirs}.ctl`)})`;
  background(["-e", code], { uid: 65534, gid: 65534 });
  await until(() => existsSync(`${theirs}.ctl`));
  const all = await top("--count", "1");
  assert.match(all.out, /control sockets? of other users not asked: name them/);
  assert.doesNotMatch(all.out, /theirs/);
  const named = await top("--count", "1", theirs);
  assert.equal(named.status, 1);
  assert.match(named.out, /theirs: its answer is not HTTP/);
});

test("says what it cannot see when the user lacks privileges", { skip: !isRoot }, async () => {
  chmodSync(folder, 0o777);
  const child = background([MAIN, "top", "--count", "1", "--interval", "0.1"], {
    ...{ uid: 65534, gid: 65534, stdio: ["ignore", "pipe", "ignore"] },
  });
  let out = "";
  child.stdout?.on("data", (chunk) => {
    out += chunk;
  });
  await new Promise((resolve) => child.once("close", resolve));
  assert.match(out, /control sockets? of other users not asked: name them, or ask as root/);
  assert.doesNotMatch(out, /no NIC is served on this machine/);
});

test("ends with status 1 and a line when a NIC that was named is not there", async () => {
  const { status, out, err } = await top("--count", "1", join(folder, "nosuch.sock"), socket);
  assert.equal(status, 1);
  assert.match(err, /nosuch\.sock: no NIC is served there \(ENOENT\)/);
  assert.ok(out.includes(NAME), out);
});

test("refuses a count that is not a whole number", async () => {
  for (const count of ["1.5", "0", "-1", "x"]) {
    assert.equal((await top("--count", count)).status, 2, count);
  }
});

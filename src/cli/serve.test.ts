/**
 * `bpfhv serve` and `status` used wrongly: one line that says what to do, and the right exit
 * status.
 */
import assert from "node:assert/strict";
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { threadStates, until } from "../../test/support/os.ts";
import { statusOf } from "../control/client.ts";
import { controlPath } from "../control/socket-path.ts";

const MAIN = fileURLToPath(new URL("./main.js", import.meta.url));
const folder = mkdtempSync(join(tmpdir(), "bpfhv-serve-"));
const socket = join(folder, "nic.sock");

after(() => rmSync(folder, { recursive: true, force: true }));

function run(words: readonly string[], uid?: number) {
  const { status, stderr, stdout } = spawnSync(process.execPath, [MAIN, ...words], {
    encoding: "utf8",
    timeout: 60_000,
    ...(uid === undefined ? {} : { uid }),
  });
  return { status, stderr, stdout };
}

/** Everything that is wrong before anything is opened: status 2. */
const USAGE: [string, string[], RegExp][] = [
  ["an unknown device", ["--device", "ne2000"], /unknown device "ne2000": there are sring/],
  ["an unknown net", ["--net", "vde:x"], /unknown net "vde:x": use tap:NAME/],
  ["an unknown option of a net", ["--net", "tap:x,fast"], /net "tap": unknown option "fast"/],
  ["a MAC of the wrong form", ["--mac", "52:54"], /MAC "52:54": write six bytes as/],
  ["a multicast MAC", ["--mac", "01:00:5e:00:00:01"], /use a unicast address/],
  ["a VLAN that there is not", ["--anti-spoof", "mac,vlan=5000"], /VLAN "5000": use numbers/],
  ["buffers that are not a power of two", ["--bufs", "100"], /use a power of two from 16 to 8192/],
  ["a user that does not exist", ["--user", "nobody-of-that-name"], /there is no such user/],
  ["an MTU beyond the largest", ["--mtu", "1600", "--max-mtu", "1500"], /at most 1500/],
  ["an unknown log level", ["--log-level", "loud"], /unknown log level "loud"/],
];

for (const [what, words, message] of USAGE) {
  test(`${what} is status 2 and one line`, () => {
    const { status, stderr } = run(["serve", "--socket", socket, ...words]);
    assert.equal(status, 2, stderr);
    assert.match(stderr, message);
    assert.equal(stderr.trim().split("\n").length, 1, stderr);
  });
}

test("a missing --socket is status 2 and points to --help", () => {
  const { status, stderr } = run(["serve"]);
  assert.equal(status, 2);
  assert.match(stderr, /--socket <path>' not specified[\s\S]*--help/);
});

test("a socket path that is something else is left alone", () => {
  const path = join(folder, "precious");
  writeFileSync(path, "data");
  const { status, stderr } = run(["serve", "--socket", path]);
  assert.equal(status, 1);
  assert.match(stderr, /precious/);
});

test("a TAP that does not exist is status 1, and says how to make it", () => {
  const { status, stderr } = run(["serve", "--socket", socket, "--net", "tap:bpfhvnone"]);
  assert.equal(status, 1);
  assert.match(stderr, /no such interface .*ip tuntap add dev bpfhvnone mode tap/);
});

const skip = process.getuid?.() === 0 ? false : "only root can become somebody without rights";
test("a TAP without rights is status 1, and says how to get them", { skip }, () => {
  const path = mkdtempSync(join(tmpdir(), "bpfhv-nobody-"));
  try {
    const words = ["serve", "--socket", "/dev/shm/bpfhv-test.sock", "--net", "tap:lo0,create"];
    const { status, stderr } = run(words, 65534);
    assert.equal(status, 1);
    assert.match(stderr, /CAP_NET_ADMIN|make the device accessible/);
  } finally {
    rmSync(path, { recursive: true, force: true });
    rmSync("/dev/shm/bpfhv-test.sock", { force: true });
  }
});

test("the status of nothing is status 1", () => {
  const { status, stderr } = run(["status", join(folder, "nobody")]);
  assert.equal(status, 1);
  assert.match(stderr, /no NIC is served on .*start one with bpfhv serve/);
});

/** A server in the background that answers. */
async function started(words: readonly string[], at: string): Promise<ChildProcess> {
  const child = spawn(process.execPath, [MAIN, "serve", "--socket", at, ...words], {
    stdio: "ignore",
  });
  await until("the server to answer", () => statusOf(at).catch(() => null));
  return child;
}

const needsRoot = process.getuid?.() === 0 ? false : "giving rights up needs root";

test("with --user no thread keeps root's rights, nor can gain any", {
  skip: needsRoot,
}, async () => {
  const at = join(folder, "dropped.sock");
  const child = await started(["--user", "nobody", "--net", "source"], at);
  try {
    const threads = threadStates(child.pid!);
    assert.ok(threads.length > 1);
    for (const thread of threads) {
      assert.match(thread, /^Uid:\t(\d+)\t\1\t\1\t\1$/m);
      assert.doesNotMatch(thread, /^[UG]id:\t0\t/m);
      for (const set of ["CapInh", "CapPrm", "CapEff", "CapAmb"]) {
        assert.match(thread, new RegExp(`^${set}:\t0+$`, "m"));
      }
      assert.match(thread, /^NoNewPrivs:\t1$/m);
      assert.match(thread, /^Seccomp:\t2$/m);
    }
    // Threads that Node.js starts before any of our code runs keep their bounding set.
    const empty = threads.filter((thread) => /^CapBnd:\t0+$/m.test(thread));
    assert.ok(empty.length >= 2, "the main thread and the NIC's");
    assert.match(readFileSync(`/proc/${child.pid}/status`, "utf8"), /^CapBnd:\t0+$/m);
    const ended = new Promise<number | null>((resolve) => child.once("exit", resolve));
    child.kill("SIGTERM");
    assert.equal(await ended, 0);
  } finally {
    child.kill("SIGKILL");
  }
  const again = await started([], at);
  again.kill("SIGTERM");
});

test("with --user the API answers when the user may not read the server's own files", {
  skip: needsRoot,
}, async () => {
  const root = fileURLToPath(new URL("../../..", import.meta.url));
  const own = mkdtempSync(join(root, "dist", "private-"));
  const at = join(folder, "private.sock");
  try {
    for (const part of ["dist/src", "src", "package.json"]) {
      cpSync(join(root, part), join(own, part), { recursive: true });
    }
    const main = join(own, "dist/src/cli/main.js");
    const child = spawn(process.execPath, [main, "serve", "--socket", at, "--user", "nobody"], {
      stdio: "ignore",
    });
    const ended = new Promise<number | null>((resolve) => child.once("exit", resolve));
    try {
      const answered = until("an answer", () => statusOf(at).catch(() => null));
      await Promise.race([answered, ended.then((code) => assert.fail(`it ended: ${code}`))]);
    } finally {
      child.kill("SIGTERM");
      await ended;
    }
  } finally {
    rmSync(own, { recursive: true, force: true });
  }
});

/** What it logs up to its first line about waiting for QEMU. */
async function logOf(words: readonly string[], at: string): Promise<string> {
  const child = spawn(process.execPath, [MAIN, "serve", "--socket", at, ...words], {
    stdio: ["ignore", "ignore", "pipe"],
  });
  let log = "";
  const ended = new Promise((resolve) => child.once("exit", resolve));
  const ready = new Promise<void>((resolve) => {
    child.stderr.on("data", (chunk) => {
      log += chunk;
      if (log.includes("waiting for QEMU")) resolve();
    });
  });
  await Promise.race([ready, ended]);
  child.kill("SIGTERM");
  await ended;
  return log;
}

test("serve says how much of the MTU guests take when they take less", async () => {
  const at = join(folder, "mtu.sock");
  assert.match(await logOf(["--mtu", "60000"], at), /MTU 60000: .* 32170 at most .*--mtu 32170/);
  const enough = await logOf(["--mtu", "32170"], at);
  assert.match(enough, /waiting for QEMU/);
  assert.doesNotMatch(enough, /MTU/);
});

test("what others can make it log is bounded, and the rest counted", async () => {
  const at = join(folder, "noisy.sock");
  const child = spawn(process.execPath, [MAIN, "serve", "--socket", at], {
    stdio: ["ignore", "ignore", "pipe"],
  });
  let log = "";
  child.stderr.on("data", (chunk) => {
    log += chunk;
  });
  const ended = new Promise((resolve) => child.once("exit", resolve));
  try {
    await until("the server to answer", () => statusOf(at).catch(() => null));
    const before = performance.now();
    let clients = 0;
    // A client that comes and goes is two lines.
    for (; performance.now() - before < 1500 || clients <= 40; clients++) await comeAndGo(at);
    await until("what was suppressed to be told", () => /suppressed \d+ more messages/.test(log));
    const seconds = (performance.now() - before) / 1000;
    const lines = log.split("\n").filter((line) => /client (connected|gone)/.test(line)).length;
    assert.ok(lines <= 10 * (seconds + 2), `${lines} lines in ${seconds} s`);
  } finally {
    child.kill("SIGTERM");
    await ended;
  }
});

/** Connects to a socket, and hangs up once the other side has noticed. */
function comeAndGo(path: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const client = connect(path, () => client.end("not a message of this protocol at all"));
    client.once("error", reject);
    client.once("close", () => resolve());
    client.resume();
  });
}

describe("a NIC that is served", () => {
  let child: ChildProcess;
  const pidFile = join(folder, "pid");

  before(async () => {
    child = await started(["--pid-file", pidFile], socket);
  });

  after(() => child.kill("SIGKILL"));

  test("keeps others off its socket", () => {
    const { status, stderr } = run(["serve", "--socket", socket]);
    assert.equal(status, 1);
    assert.match(stderr, /a live server listens there/);
  });

  test("shows its state for people in 80 columns, and as JSON", () => {
    const text = run(["status", socket]).stdout;
    assert.match(text, /handshake {3}no guest/);
    assert.match(text, /proof {7}proved/);
    assert.ok(text.split("\n").every((line) => line.length <= 80));
    const json = JSON.parse(run(["status", socket, "--json"]).stdout);
    assert.equal(json.device, "sring");
    assert.equal(json.pid, child.pid);
    assert.equal(json.queues.length, 2);
  });

  test("says whether it uses memory that cannot be sealed when `vm` asks", () => {
    const { allowUnsealed } = JSON.parse(run(["status", socket, "--json"]).stdout);
    assert.equal(allowUnsealed, false);
  });

  test("takes another port while it runs, and keeps the old one when the new one cannot be opened", () => {
    assert.match(run(["set-port", socket, "source:rate=10"]).stdout, /packets to source/);
    assert.equal(JSON.parse(run(["status", socket, "--json"]).stdout).port, "source");
    const wrong = run(["set-port", socket, "wire"]);
    assert.equal(wrong.status, 2);
    assert.match(wrong.stderr, /unknown net "wire"/);
    const missing = run(["set-port", socket, "pcap:replay=/nonexistent"]);
    assert.equal(missing.status, 1);
    assert.match(missing.stderr, /no such file; record one.*the port stays as it was/);
    assert.equal(JSON.parse(run(["status", socket, "--json"]).stdout).port, "source");
  });

  test("takes rate limits while it runs, and refuses wrong ones with what to write", () => {
    const set = run(["set-rate", socket, "tx-bytes=1M,rx-packets=10"]);
    assert.match(set.stdout, /^rate limits: tx-bytes=1M,rx-packets=10$/m);
    run(["set-port", socket, "source"]);
    const received = () =>
      JSON.parse(run(["status", socket, "--json"]).stdout).queues[0].counters.packets;
    assert.ok(received() < 1000);
    const wrong = run(["set-rate", socket, "tx=1M"]);
    assert.equal(wrong.status, 2);
    assert.match(wrong.stderr, /rate: "tx=1M": use each of tx-bytes, .*rx-bytes=1M/);
    assert.equal(run(["set-rate", socket, "none"]).stdout, "rate limits: none\n");
  });

  test("takes link, filter, loop and spin while it runs", () => {
    const linkUp = () => JSON.parse(run(["status", socket, "--json"]).stdout).link;
    const [up] = [linkUp()];
    assert.match(run(["set-link", socket, "down"]).stdout, /^link down$/m);
    run(["set-port", socket, "loopback"]);
    run(["set-link", socket, "port"]);
    assert.equal(linkUp(), up);
    assert.equal(run(["set-filter", socket, "off"]).stdout, "receive filter: off\n");
    assert.equal(run(["set-filter", socket, "guest"]).stdout, "receive filter: guest\n");
    const turns = () => JSON.parse(run(["status", socket, "--json"]).stdout).loop.turns;
    const idle = turns();
    assert.equal(run(["set-spin", socket, "100"]).stdout, "spin: 100 us\n");
    assert.equal(run(["set-loop", socket, "busy"]).stdout, "loop: busy\n");
    assert.ok(turns() > idle + 1000, "a busy loop turns all the time");
    assert.equal(run(["set-loop", socket, "adaptive"]).stdout, "loop: adaptive\n");
    const refused = run(["set-link", socket, "up"]);
    assert.equal(refused.status, 2);
    assert.match(refused.stderr, /use port or down/);
  });

  test("takes other policies while it runs, and refuses wrong ones with what to write", () => {
    const set = run(["set-policies", socket, "mac,vlan=10"]);
    assert.equal(set.stdout, "policies: anti-spoof:mac,vlan=10\n");
    const wrong = run(["set-policies", socket, "mac,vlan=ten"]);
    assert.equal(wrong.status, 2);
    assert.match(wrong.stderr, /VLAN "ten": use numbers from 0 to/);
  });

  test("takes another MTU while it runs, up to what it was started with", () => {
    assert.match(run(["set-mtu", socket, "1300"]).stdout, /^MTU 1300: the guest follows$/m);
    assert.equal(JSON.parse(run(["status", socket, "--json"]).stdout).mtu, 1300);
    const more = run(["set-mtu", socket, "1501"]);
    assert.equal(more.status, 1);
    assert.match(
      more.stderr,
      /mtu 1501: more than the NIC was started with: use at most 1500, or .*--max-mtu 1501/,
    );
    assert.equal(run(["set-mtu", socket, "small"]).status, 2);
    assert.equal(JSON.parse(run(["status", socket, "--json"]).stdout).mtu, 1300);
  });

  test("ends on SIGTERM with status 0 and removes what it made", async () => {
    const ended = new Promise<number | null>((resolve) => child.once("exit", resolve));
    child.kill("SIGTERM");
    assert.equal(await ended, 0);
    for (const path of [socket, controlPath(socket), pidFile]) {
      assert.throws(() => rmSync(path), { code: "ENOENT" });
    }
  });
});

/** `bpfhv serve` and `status` used wrongly: one line that says what to do, and the right exit status. */
import assert from "node:assert/strict";
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { askControl, controlPath } from "./control-socket.ts";

const MAIN = fileURLToPath(new URL("./main.js", import.meta.url));
const folder = mkdtempSync(join(tmpdir(), "bpfhv-serve-"));
const socket = join(folder, "nic.sock");

after(() => rmSync(folder, { recursive: true, force: true }));

function run(words: readonly string[], uid?: number) {
  const { status, stderr, stdout } = spawnSync(process.execPath, [MAIN, ...words], {
    encoding: "utf8",
    timeout: 15_000,
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
  ["buffers that are no power of two", ["--bufs", "100"], /use a power of two from 16 to 8192/],
  ["too few buffers", ["--rx-bufs", "8"], /8 receive buffers: use a power of two/],
  ["too many buffers", ["--tx-bufs", "16384"], /16384 transmit buffers: use a power of two/],
  ["no number at all", ["--queues", "many"], /"many" is not a whole number/],
  ["too many queues", ["--queues", "9"], /9 queue pairs: use 1 to 8/],
  ["an MTU of nothing", ["--mtu", "10"], /MTU 10: use 68 to 65535/],
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

test("a socket path that is too long is status 1, and says how long it may be", () => {
  const { status, stderr } = run(["serve", "--socket", join(folder, "x".repeat(120))]);
  assert.equal(status, 1);
  assert.match(stderr, /107/);
  assert.equal(stderr.trim().split("\n").length, 1, stderr);
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

describe("a NIC that is served", () => {
  let child: ChildProcess;
  const pidFile = join(folder, "pid");

  before(async () => {
    child = spawn(process.execPath, [MAIN, "serve", "--socket", socket, "--pid-file", pidFile], {
      stdio: "ignore",
    });
    for (let n = 0; ; n++) {
      const status = await askControl(controlPath(socket), {}).catch(() => null);
      if (status !== null) break;
      assert.ok(n < 100, "it answers within 10 s");
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
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
    assert.ok(text.split("\n").every((line) => line.length <= 80));
    const json = JSON.parse(run(["status", socket, "--json"]).stdout);
    assert.equal(json.device, "sring");
    assert.equal(json.pid, child.pid);
    assert.equal(json.queues.length, 2);
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

/**
 * Both ends of the bpfhv-proxy protocol in processes of their own: every packet is accounted for.
 */
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { until } from "../../test/support/os.ts";
import { statusOf } from "../control/client.ts";
import { FORMATS } from "../devices/registry.ts";
import type { NicStatus } from "../nic/status.ts";
import type { DriveResult } from "./drive-traffic.ts";

const MAIN = fileURLToPath(new URL("./main.js", import.meta.url));
const folder = mkdtempSync(join(tmpdir(), "bpfhv-proxy-"));
const started = new Set<ChildProcess>();
const FULL = process.env.BPFHV_FULL === "1";
const SECONDS = FULL ? 20 : 0.4;

after(() => {
  for (const child of started) child.kill("SIGKILL");
  rmSync(folder, { recursive: true, force: true });
});

interface Running {
  readonly child: ChildProcess;
  readonly ended: Promise<{ status: number | null; out: string; err: string }>;
}

function run(...words: string[]): Running {
  const child = spawn(process.execPath, [MAIN, ...words], { stdio: ["ignore", "pipe", "pipe"] });
  started.add(child);
  let out = "";
  let err = "";
  child.stdout?.on("data", (chunk) => {
    out += chunk;
  });
  child.stderr?.on("data", (chunk) => {
    err += chunk;
  });
  const ended = new Promise<{ status: number | null; out: string; err: string }>((resolve) => {
    child.on("close", (status) => {
      started.delete(child);
      resolve({ status, out, err });
    });
  });
  return { child, ended };
}

let sockets = 0;
const newSocket = (): string => join(folder, `s${sockets++}`);

const nicStatus = (socket: string) => statusOf(socket) as Promise<NicStatus>;

/** A drive and a backend that outlives it, so that its counters can be asked for. */
async function measure(words: string[], driveWords: string[]) {
  const socket = newSocket();
  const backend = run("backend", "-p", socket, "--reconnect", ...words);
  const driven = run(
    "drive",
    "--socket",
    socket,
    "--json",
    "--duration",
    `${SECONDS}`,
    ...driveWords,
  );
  const { status, out, err } = await driven.ended;
  assert.equal(status, 0, err);
  // It polls once a second when it never sleeps.
  await until("the backend notices", async () => (await nicStatus(socket)).step === "no guest");
  const { queues, transport } = await nicStatus(socket);
  backend.child.kill("SIGTERM");
  assert.equal((await backend.ended).status, 0);
  const [rx, tx] = queues.map(({ counters }) => counters);
  return { result: JSON.parse(out) as DriveResult, rx, tx, transport };
}

const LOOPS = {
  poll: [],
  "busy-wait": ["-B"],
  adaptive: ["--adaptive"],
  "with a pause": ["-u", "50"],
};

/** With BPFHV_FULL every device in every loop; by default the first and the last device. */
function combinations(): [string, keyof typeof LOOPS][] {
  const loops = Object.keys(LOOPS) as (keyof typeof LOOPS)[];
  if (FULL)
    return FORMATS.flatMap(({ name }) =>
      loops.map((loop): [string, keyof typeof LOOPS] => [name, loop]),
    );
  return [
    [FORMATS[0].name, "poll"],
    [FORMATS[FORMATS.length - 1].name, "adaptive"],
  ];
}

for (const [name, loop] of combinations()) {
  describe(`${name}, ${loop}`, () => {
    const words = ["-d", name, ...LOOPS[loop]];

    test("loopback: what is sent comes back whole, in order, or is counted as dropped", async () => {
      const { result, rx, tx } = await measure(
        [...words, "-b", "loopback"],
        ["--load", "changing", "--size", "0"],
      );
      assert.ok(result.sent > 50, `${result.sent} sent`);
      const { wrong, outOfOrder, foreign, stalls } = result;
      assert.deepEqual(
        { wrong, outOfOrder, foreign, stalls },
        { wrong: 0, outOfOrder: 0, foreign: 0, stalls: 0 },
      );
      assert.equal(result.completed + result.reclaimed, result.sent);
      assert.equal(tx.packets, result.completed);
      assert.equal(result.received, rx.packets);
      assert.equal(tx.packets, rx.packets + tx.dropPort);
    });

    test("source and sink at once: every packet is accounted for on both sides", async () => {
      const { result, rx, tx } = await measure([...words, "-b", "source"], []);
      assert.ok(result.sent > 50 && result.received > 50);
      assert.deepEqual([result.wrong, result.stalls], [0, 0]);
      assert.equal(result.foreign, result.received);
      assert.equal(result.received, rx.packets);
      assert.equal(result.received * 60, result.receivedBytes);
      assert.equal(tx.packets, result.completed);
      assert.equal(result.completed + result.reclaimed, result.sent);
    });
  });
}

/** What the backend offers, and which kinds of packets come back through a loopback. */
const OFFERS: [string, string[], (features: readonly string[]) => boolean, number][] = [
  ["everything", ["-G"], (names) => names.includes("TSO_V6") && names.includes("UDP_LRO"), 7],
  ["checksums", ["-C"], (names) => names.join() === "SG,TX_CSUM,RX_CSUM", 2],
  ["sending only", ["-O", "txcsum,tso"], (names) => !names.includes("RX_CSUM"), 1],
  ["nothing", [], (names) => names.length === 0, 1],
];

for (const [what, words, negotiates, kinds] of FULL ? OFFERS : [OFFERS[0], OFFERS[2]]) {
  for (const [loop, flags] of Object.entries(FULL ? LOOPS : { poll: [] })) {
    test(`sring_gso, ${loop}, offering ${what}: metadata come back as sent, or the drop is counted`, async () => {
      const { result, rx, tx } = await measure(
        ["-d", "sring_gso", "-b", "loopback", ...words, ...flags],
        ["--offloads", "--load", "changing", "--size", "0", "--bufs", "512"],
      );
      const { features, sent, completed, received, withMetadata } = result;
      assert.ok(negotiates(features), features.join());
      assert.ok(sent > 50, `${sent} sent`);
      assert.deepEqual([result.wrong, result.outOfOrder, result.stalls], [0, 0, 0]);
      assert.equal(completed + result.reclaimed, sent);
      assert.equal(tx.packets, completed);
      assert.equal(received, rx.packets);
      assert.equal(tx.packets, rx.packets + tx.dropPort + rx.dropPort + rx.dropTooLong);
      // All kinds but the plain one have metadata, and each comes as often as any other.
      const share = withMetadata / received;
      assert.ok(Math.abs(share - (kinds - 1) / kinds) < 0.1, `${withMetadata} of ${received}`);
      assert.equal(rx.dropPort > 0, what === "sending only");
    });
  }
}

for (const { name } of FULL ? FORMATS : FORMATS.slice(0, 1)) {
  test(`${name} with no port behind it: all is dropped, and counted`, async () => {
    const { result, tx } = await measure(["-d", name, "-b", "null"], ["--packets", "500"]);
    assert.equal(result.sent, 500);
    assert.equal(tx.dropPort, 500);
    assert.equal(result.received, 0);
  });
}

test("spoofed frames are dropped and counted, and the guest's own pass", async () => {
  for (const [mac, spoofed] of [
    ["52:54:00:12:34:56", 0],
    ["52:54:00:12:34:57", 500],
  ] as const) {
    const words = ["-b", "loopback", "--anti-spoof", `mac=${mac},vlan=0`];
    const { result, rx, tx } = await measure(words, ["--packets", "500"]);
    assert.equal(tx.dropSpoofed, spoofed);
    assert.equal(tx.packets, 500);
    assert.deepEqual([rx.packets, result.received], [500 - spoofed, 500 - spoofed]);
  }
});

test("another port for a backend that runs: what is sent goes there from then on", async () => {
  const socket = newSocket();
  const backend = run("backend", "-p", socket, "--reconnect", "-b", "null");
  const driven = run("drive", "--socket", socket, "--duration", "60", "--load", "changing");
  const tx = async () => (await nicStatus(socket)).queues[1].counters;
  await until("packets are dropped", async () => {
    return ((await tx().catch(() => null))?.dropPort ?? 0) > 0;
  });
  assert.match((await run("set-port", socket, "sink").ended).out, /packets to sink, link up/);
  assert.match((await run("set-mtu", socket, "1400").ended).err, /has no MTU: it is 1500/);
  const { dropPort, packets } = await tx();
  await until("packets go on", async () => (await tx()).packets > packets + 100);
  assert.equal((await tx()).dropPort, dropPort);
  for (const { child } of [driven, backend]) child.kill("SIGTERM");
  await Promise.all([driven.ended, backend.ended]);
});

test("busy-wait never asks for a kick; poll asks for few under load", async () => {
  const busy = await measure(["-B", "-b", "sink"], []);
  // A fresh context holds a kick request: at most one kick for each queue.
  assert.ok(busy.result.kicks <= 2, `${busy.result.kicks} kicks`);
  assert.equal(busy.tx.kicks, 0);
  const poll = await measure(["-b", "sink"], ["--packets", "200"]);
  assert.ok(poll.transport.kicks > 0);
});

/** Clock ticks of CPU time that a process has used. */
function ticks(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1].split(" ");
  return Number(fields[11]) + Number(fields[12]);
}

/** Share of a core that an idle backend uses while a guest waits for packets that do not come. */
async function idleUse(seconds: number, words: string[]): Promise<number> {
  const socket = newSocket();
  const backend = run("backend", "-p", socket, "--reconnect", "-b", "sink", ...words);
  const wait = ["--direction", "rx", "--duration", "120"];
  const driven = run("drive", "--socket", socket, ...wait);
  await until("packets may flow", async () => {
    return (await nicStatus(socket).catch(() => null))?.step === "enabled";
  });
  // What was just started is still being compiled.
  await sleep(FULL ? 5000 : 1500);
  const before = ticks(backend.child.pid as number);
  await sleep(seconds * 1000);
  const used = (ticks(backend.child.pid as number) - before) / 100 / seconds;
  for (const { child } of [driven, backend]) child.kill("SIGTERM");
  await Promise.all([backend.ended, driven.ended]);
  return used;
}

test("an idle backend sleeps, in poll and in adaptive mode", async () => {
  const used = await Promise.all(
    [[], ["--adaptive"]].map((words) => idleUse(FULL ? 20 : 2, words)),
  );
  const text = used.map((share) => `${(share * 100).toFixed(2)} %`).join(", ");
  if (FULL) console.log(`idle: ${text} of a core`);
  // Half a per cent is the aim, which is one tick in two seconds; spinning is all of it. Between is
  // noise.
  assert.ok(
    used.every((share) => share < 0.15),
    text,
  );
});

test("a pid file's backend is replaced; the new one waits for its end, and takes the file along", async () => {
  const file = join(folder, "pid");
  const words = ["backend", "--reconnect", "-b", "sink", "-P", file, "-p"];
  const first = run(...words, newSocket());
  await until("the pid is written", () => existsSync(file) && readFileSync(file, "utf8") !== "");
  assert.equal(readFileSync(file, "utf8"), `${first.child.pid}`);
  await sleep(300);
  const second = run(...words, newSocket());
  assert.equal((await first.ended).status, 0, "ended in order");
  await until(
    "the new pid",
    () => existsSync(file) && readFileSync(file, "utf8") === `${second.child.pid}`,
  );
  second.child.kill("SIGINT");
  assert.equal((await second.ended).status, 0);
  assert.equal(existsSync(file), false);
});

test("backend exits with a usage error when an option is wrong", async () => {
  const wrong = [
    [["-u", "1001"], /0 to 1000/],
    [["-d", "e1000"], /unknown device/],
    [["-b", "netmap"], /not supported/],
    [["-b", "nothing"], /unknown net/],
    [["-O", "txcsum,ufo"], /unknown offload "ufo"/],
    [["-B", "--adaptive"], /cannot be used/],
    [["--anti-spoof", "mac"], /use mac=ADDRESS/],
    [["--tap-address", "10.0.0.1/24"], /--create-tap/],
  ] as const;
  const results = await Promise.all(
    wrong.map(([words]) => run("backend", "-p", newSocket(), ...words).ended),
  );
  for (const [i, { status, err }] of results.entries()) {
    assert.equal(status, 2, err);
    assert.match(err, wrong[i][1]);
  }
});

test("a backend says how to start QEMU when nothing listens on the path", async () => {
  const socket = newSocket();
  const { status, err } = await run("backend", "-p", socket, "-b", "sink").ended;
  assert.equal(status, 1);
  const words = `-chardev socket,id=c0,path=${socket},server -netdev bpfhv-proxy,id=n0,chardev=c0`;
  assert.ok(err.includes(`connect ${socket}: `) && err.includes("(ENOENT)"), err);
  assert.ok(err.includes(words) && err.includes("--reconnect"), err);
});

test("a backend with --reconnect waits and serves when QEMU starts after it", async () => {
  const socket = newSocket();
  const backend = run("backend", "-p", socket, "-b", "loopback", "--reconnect");
  let said = "";
  backend.child.stderr?.on("data", (chunk) => {
    said += chunk;
  });
  await until("it says so", () => said.includes("waiting for it"));
  assert.equal(said.split("waiting for it").length, 2, "once");
  const driven = await run("drive", "--socket", socket, "--packets", "20", "--json").ended;
  assert.equal(driven.status, 0, driven.err);
  assert.equal((JSON.parse(driven.out) as DriveResult).received, 20);
  backend.child.kill("SIGTERM");
  assert.equal((await backend.ended).status, 0);
});

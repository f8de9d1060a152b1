/** `bpfhv adapt` and `bpfhv dev --socket`, with a server and a guest under load. */
import assert from "node:assert/strict";
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { FULL } from "../../test/support/guest.ts";
import { until } from "../../test/support/os.ts";
import { statusOf } from "../control/client.ts";
import { GuestDriver } from "../guest/driver.ts";
import { LocalMemory } from "../guest/memory.ts";
import { VfioUserClient } from "../guest/vfio-user-client.ts";
import type { NicStatus } from "../nic/status.ts";

const MAIN = fileURLToPath(new URL("./main.js", import.meta.url));
const MINI = readFileSync(new URL("../../../examples/mini-ring.ts", import.meta.url), "utf8");
const folder = mkdtempSync(join(tmpdir(), "bpfhv-adapt-"));
const socket = join(folder, "vm1.sock");
const children = new Set<ChildProcess>();
const memory = new LocalMemory(32 << 20);
const nic = async () => (await statusOf(socket)) as NicStatus;
let client: VfioUserClient | undefined;
let running: Promise<void> | undefined;
let over = false;

function start(...words: string[]) {
  const child = spawn(process.execPath, [MAIN, ...words], { cwd: folder });
  children.add(child);
  const seen = { out: "", err: "" };
  child.stdout.on("data", (text) => (seen.out += text));
  child.stderr.on("data", (text) => (seen.err += text));
  const ended = new Promise<number | null>((resolve) => child.once("exit", resolve));
  return { child, seen, ended };
}

/** With a server, a guest and a compiler at once they take long on a busy machine. */
const skip = FULL ? false : "set BPFHV_FULL=1";

before(async () => {
  if (!FULL) return;
  start("serve", "--socket", socket, "--net", "source:size=1400,rate=2000");
  await until("the server", () => statusOf(socket).catch(() => null));
  client = new VfioUserClient(socket, memory, 3);
  const driver = new GuestDriver(client, memory, { overlap: true });
  driver.open();
  running = (async () => {
    while (!over) {
      driver.receive(0, () => {});
      driver.upgrade.step();
      await sleep(1);
    }
  })();
});

after(async () => {
  over = true;
  await running;
  client?.close();
  memory.close();
  for (const child of children) child.kill("SIGKILL");
  rmSync(folder, { recursive: true, force: true });
});

test("adapt moves a NIC under large packets to offloads, and leaves it so when it ends", {
  skip,
}, async () => {
  const { child, seen, ended } = start(
    "adapt",
    socket,
    "--policy",
    "offload-when-large",
    "--every",
    "100",
  );
  await until("the change", () => {
    if (seen.err !== "") throw new Error(seen.out + seen.err);
    return seen.out.includes("changed to device sring_gso\n");
  });
  assert.equal((await nic()).device, "sring_gso");
  child.kill("SIGINT");
  assert.deepEqual([await ended, seen.err], [0, ""]);
  assert.equal((await nic()).device, "sring_gso");
});

test("adapt takes a policy from a file, and stops it when it asks for the impossible", {
  skip,
}, async () => {
  const text = `import { definePolicy, type Sample } from "bpfhv/policy";
export default definePolicy({
  name: "greedy",
  decide: ({ spec }: Sample) => (spec.rxBufs === 64 ? { queues: 8 } : { rxBufs: 64 }),
});\n`;
  writeFileSync(join(folder, "greedy.ts"), text);
  const words = ["adapt", socket, "--policy", "./greedy.ts", "--every", "1100", "--json"];
  const { seen, ended } = start(...words);
  assert.equal(await ended, 1);
  const states = seen.out
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line).state);
  assert.deepEqual(states, ["changed", "refused", "refused", "stopped"]);
  assert.match(seen.err, /^bpfhv: policy greedy was refused 3 times in a row, .*queues: cannot/);
  assert.equal((await nic()).queues[0].bufs, 64);
});

test("adapt is a wrong call, or fails, when there is no such policy", () => {
  const run = (policy: string) =>
    spawnSync(process.execPath, [MAIN, "adapt", socket, "--policy", policy], { encoding: "utf8" });
  assert.equal(run("none").status, 2);
  assert.match(run("./none.ts").stderr, /none\.ts is not there/);
  writeFileSync(join(folder, "empty.ts"), "export default 1;\n");
  assert.match(run(join(folder, "empty.ts")).stderr, /has no policy: export default definePolicy/);
});

test("dev --socket replaces the NIC of a server on each save", { skip }, async () => {
  const file = join(folder, "nic.ts");
  writeFileSync(file, MINI);
  const { child, seen, ended } = start("dev", file, "--socket", socket, "--json");
  await until("the first", () => seen.out !== "" || seen.err !== "");
  assert.match(seen.out, /"started"/, seen.err);
  assert.equal((await nic()).device, "mini_ring");
  writeFileSync(file, MINI.replace('name: "mini_ring"', 'name: "second"'));
  await until("the second", async () => (await nic()).device === "second");
  await until("its event", () => seen.out.includes('"swapped"'));
  child.kill("SIGINT");
  assert.deepEqual([await ended, seen.err], [0, ""]);
});

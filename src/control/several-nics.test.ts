/** Several NICs in one process, each in its own worker: what a fault in one does to the others. */
import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { pathToFileURL } from "node:url";
import { KeptWorker, TestNic } from "../../test/support/nics.ts";
import { atMost } from "../../test/support/os.ts";
import { fdTarget } from "../os/fd.ts";
import { WorkerHandle } from "./handle.ts";
import { NicGroup } from "./nic-group.ts";
import { nicWorker, WaitingWorker } from "./waiting-worker.ts";

const folder = mkdtempSync(join(tmpdir(), "bpfhv-nics-"));
after(() => rmSync(folder, { recursive: true, force: true }));

/** Mappings of guests' memory in this process. */
const guestMappings = (): number =>
  readFileSync("/proc/self/maps", "utf8").match(/memfd:bpfhv-guest/g)?.length ?? 0;

test("NICs move packets when others of their process fail, and all end in time", async () => {
  const dying = new KeptWorker(new URL("./nic-worker.js", import.meta.url));
  const nics = [
    new TestNic(folder, "nic0", { kind: "source" }, nicWorker()),
    new TestNic(folder, "dying", { kind: "source" }, dying),
    new TestNic(folder, "no-tap", { kind: "tap", tap: "bpfhv-none", create: false }, nicWorker()),
    new TestNic(folder, "nic3", { kind: "source" }, nicWorker()),
  ];
  const failures: string[] = [];
  const group = new NicGroup(nics, ({ name }, { message }) => failures.push(`${name}: ${message}`));
  await group.each(({ handle }) => handle.started());
  assert.deepEqual(
    group.running.map(({ name }) => name),
    ["nic0", "dying", "nic3"],
  );
  assert.match(failures.join("\n"), /^no-tap: open /);
  await group.each((nic) => nic.ship());

  const guests = group.running.map((nic) => nic.attach());
  const move = (of: typeof guests) => Promise.all(of.map((guest) => guest.move(300)));
  await move(guests);

  // A client of a NIC whose thread is gone must see the end of its connection.
  const mappings = guestMappings();
  await dying.thread?.terminate();
  await assert.rejects(nics[1].ended, /the worker ended unexpectedly/);
  assert.equal(failures[1], "dying: the worker ended unexpectedly");
  assert.throws(() => guests[1].client.read(0, 0), /closed the connection|EPIPE|ECONNRESET/);
  assert.ok(guestMappings() < mappings, "guest memory is unmapped");

  await move([guests[0], guests[2]]);
  for (const nic of group.running) {
    const { queues, step } = await nic.status();
    assert.equal(step, "enabled");
    assert.ok(queues.every(({ counters }) => counters.packets >= 600));
  }
  const start = performance.now();
  await group.stop();
  assert.ok(performance.now() - start < atMost(2000));
  await assert.rejects(group.ended, /^NicFailed: 2 of 4 NICs failed \(no-tap: .*; dying: /);
  for (const guest of guests) guest.close();
});

/** Holds a descriptor, then takes memory until there is none left. */
const GREEDY = `
import { parentPort } from "node:worker_threads";
import { startPulse } from ${JSON.stringify(new URL("./pulse.js", import.meta.url).href)};
import { takeTask } from ${JSON.stringify(new URL("./waiting-worker.js", import.meta.url).href)};
import { keepLedger } from ${JSON.stringify(new URL("../os/ledger.js", import.meta.url).href)};
import { createMemfd } from ${JSON.stringify(new URL("../os/memory.js", import.meta.url).href)};
startPulse();
keepLedger(takeTask(parentPort).ledger);
createMemfd("greedy", 4096);
parentPort.postMessage({ kind: "print", text: "" });
const list = [];
setInterval(() => {
  for (let n = 0; n < 10000; n++) list.push({ n });
}, 1);
`;

/** Descriptors of this process that are of its memory file. */
const greedyFds = (): number =>
  readdirSync("/proc/self/fd").filter((fd) => fdTarget(Number(fd)).startsWith("/memfd:greedy"))
    .length;

test("a NIC fails alone when its worker runs out of memory", async () => {
  const file = join(folder, "greedy.mjs");
  writeFileSync(file, GREEDY);
  const worker = new WaitingWorker(pathToFileURL(file), { maxOldGenerationSizeMb: 24 });
  let held = 0;
  const handle = new WorkerHandle({
    ...{ name: "greedy", task: {}, worker, log: () => {} },
    print: () => {
      held = greedyFds();
    },
  });
  await assert.rejects(handle.ended, /ERR_WORKER_OUT_OF_MEMORY|memory limit/);
  assert.deepEqual([held, greedyFds()], [1, 0]);
});

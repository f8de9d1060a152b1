/** A guest that writes random values to every BAR and context, beside an honest one. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { Bench, frameOf, numberOf } from "../../test/support/guest.ts";
import { BAR_DOORBELLS, BAR_PROGRAM, BAR_REGISTERS, REG } from "../abi/index.ts";
import { programSets } from "../devices/program-set.ts";
import { sring } from "../devices/sring/host.ts";
import { BYTES, PACKETS } from "../memory/counters.ts";
import { NullPort } from "../net/synthetic.ts";
import { randomFrom } from "../suite/case.ts";
import { readBar, writeBar } from "./bars.ts";
import { LocalNic } from "./local.ts";
import { type NicRecord, restoreNic, saveNic } from "./persist.ts";

const SEED = 20260;
const FULL = process.env.BPFHV_FULL === "1";
const ACCESSES = FULL ? 120_000 : 20_000;
/** Some of which corrupt an index. */
const CORRUPT_RINGS = FULL ? 300 : 100;
const BUFS = { rxBufs: 64, txBufs: 64 };
const RESTORED_EVERY = 37;
const BARS = [BAR_REGISTERS, BAR_DOORBELLS, BAR_PROGRAM];

/** Values that are valid for some register, and values that are not. */
function value(random: (below: number) => number, memory: number): number {
  const shapes = [
    () => random(2 ** 32),
    () => random(16),
    () => 1 << random(32),
    () => 0xffffffff,
    () => memory + 4096 * random(2048),
    () => 0,
  ];
  return shapes[random(shapes.length)]() >>> 0;
}

test("NIC and its neighbour continue when a guest makes random accesses", () => {
  const bad = new Bench({ pairs: 2, config: BUFS });
  const good = new Bench();
  good.driver.open();
  bad.driver.open();
  const random = randomFrom(SEED);
  const sizes = [1, 2, 4, 4, 4, 4];
  let sent = 0;
  for (let n = 0; n < ACCESSES; n++) {
    const bar = BARS[random(8) < 6 ? 0 : random(BARS.length)];
    const size = sizes[random(sizes.length)];
    const end = bar === BAR_REGISTERS ? REG.EXT_END + 64 : 4096;
    const offset = size === 4 && random(8) > 0 ? 4 * random(end / 4) : random(end - size);
    if (random(3) === 0) {
      const result = readBar(bad.nic, bar, offset, size);
      assert.ok(Number.isInteger(result) && result >= 0 && result <= 0xffffffff, `read ${offset}`);
    } else {
      writeBar(bad.nic, bar, offset, size, value(random, 0x100000));
    }
    if (random(4) === 0) {
      const context = bad.driver.contextOf(random(4));
      const at = random(2) === 0 ? 2096 + random(512) : random(context.length);
      context[at] = random(256);
    }
    if (random(16) === 0) bad.ports[random(2)].incoming.push(frameOf(n));
    if (random(64) === 0) bad.nic.busMasterChanged(random(8) > 0);
    if (random(256) === 0) bad.memory.setVisible(random(4) > 0);
    if (random(256) === 0) bad.nic.memoryChanged();
    if (random(1024) === 0) bad.nic.reset();
    if (random(2048) === 0) revive(bad);
    bad.local.turn();
    if (n % RESTORED_EVERY === 0) restoreElsewhere(bad);
    if (n % 100 === 0) {
      good.driver.send(0, frameOf(sent++));
      good.ports[0].incoming.push(frameOf(n));
      good.settle();
      assert.deepEqual(good.take().map(numberOf), [n]);
      good.driver.clean(0);
    }
  }
  assert.deepEqual(good.ports[0].sent.map(numberOf), [...Array(sent).keys()]);
  const { register, doorbell, programWindow, context, blob, enable } = bad.nic.refusals.counts;
  for (const [what, count] of Object.entries({
    register,
    doorbell,
    programWindow,
    context,
    enable,
  })) {
    assert.ok(count > 0, `${what} was refused at least once`);
  }
  assert.ok(blob >= 0);
  bad.close();
  good.close();
});

const PROGRAMS = programSets(sring, BUFS);

/** Another process goes on after a crash, whatever state the guest has made. */
function restoreElsewhere({ nic, memory }: Bench): void {
  nic.memoryChanged();
  const record = JSON.parse(JSON.stringify(saveNic(nic, true))) as NicRecord;
  const ports = nic.pairs.map(() => new NullPort());
  const options = { device: sring, memory, ports, config: BUFS, programs: PROGRAMS };
  const next = new LocalNic(options).nic;
  // The rings are served by one process.
  next.busMasterChanged(false);
  restoreNic(next, { ...record, state: { ...record.state, busMaster: false } });
  next.detach();
}

/** Restarts the driver, so that there is a running ring to corrupt. */
function revive(bench: Bench): void {
  bench.memory.setVisible(true);
  bench.nic.busMasterChanged(true);
  bench.nic.memoryChanged();
  bench.nic.reset();
  try {
    bench.driver.open();
  } catch {
    // Reset withdrew the abilities, so contexts by page list are refused. That is tested, too.
  }
}

test("queue stops and counts it when the guest corrupts words of its running ring", () => {
  const random = randomFrom(SEED + 1);
  let broken = 0;
  for (let round = 0; round < CORRUPT_RINGS; round++) {
    const bench = new Bench({ config: { rxBufs: 16, txBufs: 16 } });
    bench.driver.open();
    for (let n = 0; n < 8; n++) bench.driver.send(0, frameOf(n));
    for (let n = 0; n < 8; n++) bench.ports[0].incoming.push(frameOf(n));
    const context = bench.driver.contextOf(random(2));
    for (let i = 0; i < 64; i++) context[2096 + random(context.length - 2096)] = random(256);
    for (let turn = 0; turn < 20; turn++) bench.local.turn();
    const [pair] = bench.local.pairs;
    if (pair.tx.broken || pair.rx.broken) broken++;
    // At most one ring of packets each way.
    assert.ok(pair.tx.counters[PACKETS] <= 16 && pair.rx.counters[PACKETS] <= 16);
    assert.ok(pair.tx.counters[BYTES] <= 16 * 65536);
    bench.close();
  }
  assert.ok(broken > 0, "some of it was a lie about indices");
});

/** Sets are replaced while packets flow in both directions: none is lost, repeated or overtaken. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { Bench, FULL, frameOf, numberOf } from "../../test/support/guest.ts";
import { Live, randomFrom } from "../../test/support/live.ts";
import { BAR_REGISTERS, CTRL, Q_CMD, REG } from "../abi/index.ts";
import type { RingFormat } from "../devices/format.ts";
import { FORMATS } from "../devices/registry.ts";
import { sring } from "../devices/sring/host.ts";
import { sringGso } from "../devices/sring_gso/host.ts";
import { vringPacked } from "../devices/vring_packed/host.ts";
import { NEEDS_CSUM } from "../memory/index.ts";

/** Every ordered pair of formats, each with itself, too. */
const ROUND: readonly RingFormat[] = [
  ...[sring, sringGso, sringGso, vringPacked, vringPacked, sring, vringPacked, sringGso, sring],
];
const SIZES = [16, 64, 256, 32];
const ROUNDS = FULL ? 12 : 1;

/** A moment of load: bursts both ways, and a port that blocks sometimes. */
function load(live: Live, random: (below: number) => number): void {
  const queue = random(live.ports.length);
  const port = live.ports[queue];
  const burst = 1 + random(12);
  for (let n = 0; n < burst; n++) live.send(queue);
  port.waiting = Math.min(port.waiting + 1 + random(12), 500);
  if (random(4) === 0) port.room = random(10);
  else if (random(2) === 0) port.room = Number.POSITIVE_INFINITY;
  live.pair(queue).portWritable();
  if (random(3) > 0) live.local.turn();
  if (random(2) === 0) live.take(random(live.ports.length), 1 + random(40));
}

/** The driver takes what is staged, under load. */
function upgrade(live: Live, random: (below: number) => number): void {
  const { taken, dropped } = live.driver.upgrade.counters;
  for (let n = 0; live.driver.upgrade.counters.taken === taken; n++) {
    assert.ok(n < 20_000, `stuck in ${live.driver.upgrade.phase}, host ${live.nic.upgrade.phase}`);
    load(live, random);
    if (random(2) === 0) live.step();
    assert.equal(live.driver.upgrade.counters.dropped, dropped);
  }
}

test("no packet is lost when sets are replaced under load, through all pairs of formats", () => {
  const random = randomFrom(1);
  const live = new Live({ device: sring, pairs: 2, bufs: 64, mib: 256 });
  live.driver.open();
  for (let n = 0; n < ROUNDS * ROUND.length; n++) {
    const device = ROUND[(n + 1) % ROUND.length];
    const rxBufs = SIZES[random(4)];
    const txBufs = SIZES[random(4)];
    const features = random(3) === 0 ? 0 : device.features;
    live.local.replace(device, { rxBufs, txBufs, features });
    upgrade(live, random);
    const { running } = live.nic;
    assert.deepEqual([running.format.name, running.rxBufs], [device.name, rxBufs]);
    assert.equal(live.driver.features, features);
    assert.equal(live.nic.upgrade.report?.state, "done");
  }
  live.check("at the end");
  assert.equal(live.nic.refusals.counts.upgrade, 0, live.nic.refusals.last);
  const { all, inFlight } = live.cuts;
  assert.equal(all, 4 * ROUNDS * ROUND.length);
  assert.ok(2 * inFlight >= all, `${inFlight} of ${all} cuts with packets in flight`);
  live.close();
});

test("no packet is mixed when each carries the set that it was sent in", () => {
  const random = randomFrom(2);
  const live = new Live({ device: vringPacked, mib: 128 });
  live.driver.open();
  const packets = FULL ? 1_000_000 : 20_000;
  for (let n = 1; live.packets < packets; n++) {
    live.local.replace(FORMATS[n % FORMATS.length], { rxBufs: 64, txBufs: 64 });
    upgrade(live, random);
    for (let more = 0; more < (FULL ? 2000 : 100); more++) load(live, random);
  }
  live.check(`${live.packets} packets`);
  live.close();
});

/** Takes the driver's steps before its last cut. */
function stepsBeforeLastCut({ driver: { upgrade } }: Bench): void {
  for (let n = 0; upgrade.phase !== "cut"; n++) {
    assert.ok(n < 20);
    upgrade.step();
  }
  upgrade.step();
}

test("old ring is taken once more when the new ring's first packet is seen", () => {
  const bench = new Bench({ guest: { overlap: true } });
  bench.driver.open();
  const [port] = bench.ports;
  bench.local.replace(vringPacked, { rxBufs: 64, txBufs: 64 });
  stepsBeforeLastCut(bench);
  // The host is late, as if it were another thread: the cut is carried out below.
  const { write } = bench.local;
  let late = () => {};
  bench.local.write = (bar, offset, value) => {
    if (bar === BAR_REGISTERS && offset === REG.Q_CMD && value >>> 16 === Q_CMD.RX_CUT)
      late = () => write.call(bench.local, bar, offset, value);
    else write.call(bench.local, bar, offset, value);
  };
  bench.driver.upgrade.step();
  const [ring] = bench.driver.rx;
  const { collect } = ring;
  // Just after the driver has found the old ring empty.
  ring.collect = (take) => {
    port.incoming.push(frameOf(1), frameOf(2));
    bench.local.turn();
    late();
    port.incoming.push(frameOf(3), frameOf(4));
    bench.local.turn();
    ring.collect = collect;
    return ring.collect(take);
  };
  assert.deepEqual(bench.take().map(numberOf), [1, 2, 3, 4]);
  bench.close();
});

test("large packet that the port has queued arrives when the next set has fewer features", () => {
  const guest = { features: sringGso.features, overlap: true };
  const bench = new Bench({ device: sringGso, guest });
  bench.driver.open();
  const { upgrade } = bench.driver;
  bench.local.replace(sring, { rxBufs: 64, txBufs: 64 });
  // The receive queue's cut is the last one.
  stepsBeforeLastCut(bench);
  const large = frameOf(1);
  const needs = { flags: NEEDS_CSUM, gsoType: 0, gsoSize: 0 };
  const metadata = { ...needs, hdrLen: 54, csumStart: 34, csumOffset: 16 };
  bench.ports[0].incomingMetadata.set(large, metadata);
  bench.ports[0].incoming.push(large);
  upgrade.step();
  bench.ports[0].incoming.push(frameOf(2));
  bench.settle();
  assert.deepEqual(bench.take().map(numberOf), [1, 2]);
  assert.deepEqual([bench.ports[0].tooLong, bench.ports[0].dropped], [0, 0]);
  for (let n = 0; upgrade.step() && n < 20; n++) {
    bench.settle();
    bench.take();
  }
  assert.equal(bench.nic.running.format, sring);
  // From here on the port may bring none of them.
  bench.ports[0].incomingMetadata.set(large, metadata);
  bench.ports[0].incoming.push(large);
  bench.settle();
  assert.equal(bench.ports[0].tooLong, 1);
  bench.close();
});

/** The original's handshake: close, ready, fetch the new set, open. @returns lost packets */
function originalHandshake(live: Live): void {
  live.local.replace(vringPacked, { rxBufs: 64, txBufs: 64, mayLose: true });
  live.driver.close();
  live.local.write(0, 4, CTRL.UPGRADE_READY);
}

test("packets are lost at the same load by the original's handshake, and none without it", () => {
  for (const asks of [false, true]) {
    const random = randomFrom(3);
    const live = new Live({ device: sring, overlap: false });
    live.driver.open();
    for (let n = 0; n < 500; n++) {
      load(live, random);
      if (asks && n === 250) {
        live.ports[0].room = 2;
        for (let each = 0; each < 8; each++) live.send(0);
        originalHandshake(live);
        assert.equal(live.nic.running.format, vringPacked);
        break;
      }
    }
    if (!asks) live.check("control");
    else {
      const { outgoing } = live.ports[0];
      assert.ok(live.sent[0] > outgoing.expected, "what the port did not take is dropped");
    }
    live.close();
  }
});

/** A guest that lies costs itself its queue: never the host, another queue, or a count. */
import assert from "node:assert/strict";
import { PRIVATE_OFFSET } from "../abi/index.ts";
import { GuestDriver } from "../guest/driver.ts";
import {
  countersToJson,
  DROP_BAD_ADDRESS,
  DROP_BAD_LENGTH,
  DROP_COUNTERS,
  PACKETS,
  type QueueCounters,
} from "../memory/counters.ts";
import type { GuestMemory } from "../memory/index.ts";
import { Bench, frameOf, numberOf } from "./bench.ts";
import { type Case, casesOf, type Random, type Subject, withSeeds } from "./case.ts";

const BUFFER = 2048;
const BUFS = 16;

function benchOf(
  { format, form }: Subject,
  pairs = 1,
  machine?: (memory: GuestMemory) => GuestMemory,
): Bench {
  const bench = new Bench({
    ...{ device: format, form, pairs, mib: 4, config: { rxBufs: BUFS, txBufs: BUFS } },
    guest: { bufferSize: BUFFER },
    ...(machine === undefined ? {} : { machine }),
  });
  bench.driver.open();
  return bench;
}

function overwrite(random: Random, context: Uint8Array): void {
  for (let left = 1 + random(60); left > 0; left--) {
    context[PRIVATE_OFFSET + random(context.length - PRIVATE_OFFSET)] = random(256);
  }
}

/** One frame each way, through the queue pair. */
function expectTraffic(bench: Bench, queue = 0): void {
  const port = bench.ports[queue];
  port.sent.length = 0;
  port.incoming.push(frameOf(7));
  assert.ok(bench.driver.send(queue, frameOf(5)), "the transmit ring is full");
  bench.settle();
  assert.deepEqual(port.sent.map(numberOf), [5]);
  assert.deepEqual(bench.take(queue).map(numberOf), [7]);
  bench.driver.clean(queue);
}

const drops = (counters: QueueCounters): number => {
  const json = countersToJson(counters);
  return DROP_COUNTERS.reduce((sum, name) => sum + json[name], 0);
};

/** As the guest's memory, but the host finds nothing at addresses for which `hole` says so. */
const withHoles =
  (hole: (address: number) => boolean) =>
  (memory: GuestMemory): GuestMemory => ({
    generation: memory.generation,
    ranges: memory.ranges,
    translate: (address, length, write) =>
      hole(address) ? 0 : memory.translate(address, length, write),
  });

const CHECKS: Readonly<Record<string, (subject: Subject) => void>> = {
  "host keeps running when a guest overwrites its context, and a reset repairs it": (subject) => {
    // Each run has a guest of its own, which is what takes the time.
    withSeeds(Math.ceil(subject.runs / 3), (random) => {
      const bench = benchOf(subject);
      bench.driver.send(0, frameOf(1));
      overwrite(random, bench.driver.contextOf(random(2)));
      for (let turn = 0; turn < 20; turn++) {
        bench.ports[0].incoming.push(frameOf(turn));
        bench.local.turn();
        bench.local.pairs[0].armKicks();
        bench.local.pairs[0].lookAgain();
        for (const queue of bench.nic.queues) queue.ring?.dump();
      }
      bench.nic.reset();
      bench.ports[0].incoming.length = 0;
      bench.driver = new GuestDriver(bench.local, bench.memory, {
        ...{ form: subject.form, bufferSize: BUFFER },
      });
      bench.driver.open();
      expectTraffic(bench);
      bench.close();
    });
  },

  "another queue pair keeps moving when a guest overwrites a context": (subject) => {
    const bench = benchOf(subject, 2);
    withSeeds(subject.runs, (random) => {
      overwrite(random, bench.driver.contextOf(2 * random(2)));
      for (let turn = 0; turn < BUFS / 2; turn++) expectTraffic(bench, 1);
    });
    bench.close();
  },

  "descriptor outside guest memory is completed and counted, and those behind it pass": (
    subject,
  ) => {
    const holes = new Set<number>();
    const bench = benchOf(
      subject,
      1,
      withHoles((address) => holes.has(address)),
    );
    const [tx] = bench.driver.tx;
    const sent: number[] = [];
    for (let n = 0; n < 3 * BUFS; n++) {
      const address = tx.addressOf(tx.nextId());
      if (n % 3 === 1) holes.add(address);
      else sent.push(n);
      assert.ok(bench.driver.send(0, frameOf(n)), `packet ${n}`);
      if (n % 5 < 3) continue;
      bench.settle();
      bench.driver.clean(0);
      holes.clear();
    }
    bench.settle();
    bench.driver.clean(0);
    const { counters } = bench.local.pairs[0].tx;
    assert.deepEqual(bench.ports[0].sent.map(numberOf), sent);
    assert.equal(counters[DROP_BAD_ADDRESS], 3 * BUFS - sent.length);
    assert.equal(drops(counters), 3 * BUFS - sent.length, "each is in one counter");
    assert.equal(counters[PACKETS], sent.length);
    assert.equal(tx.outstanding, 0);
    bench.close();
  },

  "receive buffer outside guest memory is completed empty, and packets pass it": (subject) => {
    const holes = new Set<number>();
    const bench = benchOf(
      subject,
      1,
      withHoles((address) => holes.has(address)),
    );
    const [rx] = bench.driver.rx;
    for (let id = 0; id < BUFS; id += 4) holes.add(rx.addressOf(id));
    for (let n = 0; n < 2 * BUFS; n++) bench.ports[0].incoming.push(frameOf(n));
    const got: number[] = [];
    const [pair] = bench.local.pairs;
    for (let turn = 0; turn < 4 * BUFS && got.length < 2 * BUFS; turn++) {
      // Back-off, which invalid descriptors cause, goes by the clock.
      bench.nic.queues[0].backOff.end();
      bench.local.turn();
      got.push(...bench.take().map(numberOf));
    }
    assert.deepEqual(got, [...Array(2 * BUFS).keys()]);
    assert.ok(pair.rx.counters[DROP_BAD_ADDRESS] > 0);
    bench.close();
  },

  "frame shorter than an Ethernet header is dropped and counted": (subject) => {
    const bench = benchOf(subject);
    for (const length of [1, 13, 14, 60]) {
      assert.ok(bench.driver.send(0, frameOf(0).subarray(0, length)));
      bench.settle();
      bench.driver.clean(0);
    }
    const { counters } = bench.local.pairs[0].tx;
    const lengths = bench.ports[0].sent.map((frame) => frame.length);
    assert.deepEqual(lengths, [14, 60]);
    assert.equal(counters[DROP_BAD_LENGTH], 2);
    assert.equal(bench.driver.tx[0].outstanding, 0);
    bench.close();
  },
};

/** Contexts and descriptors that no driver writes. */
export function lieCases(subject: Subject): Case[] {
  return casesOf(subject, CHECKS);
}

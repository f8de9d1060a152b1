/**
 * Each packet is delivered once, in order and unchanged, or counted in one drop counter, whatever
 * the order in which guest, host and port run. And a ring's position is all that its state is.
 */
import assert from "node:assert/strict";
import { DROP_PORT, newQueueCounters, PACKETS } from "../memory/counters.ts";
import { Batch, FlatWords } from "../memory/index.ts";
import { packetBytes } from "../net/base.ts";
import { Bench, frameOf, numberOf } from "./bench.ts";
import { type Case, casesOf, type Random, type Subject, withSeeds } from "./case.ts";

const BUFS = 16;
const PACKETS_EACH_WAY = 100;

function benchOf({ format, form }: Subject, bufs: number): Bench {
  const bench = new Bench({
    ...{ device: format, form, mib: 4, config: { rxBufs: bufs, txBufs: bufs } },
    guest: { bufferSize: 2048 },
  });
  bench.driver.open();
  return bench;
}

function expectFrames(frames: readonly Uint8Array[], numbers: readonly number[]): void {
  assert.deepEqual(frames.map(numberOf), numbers);
  for (const frame of frames) {
    assert.equal(Buffer.compare(frame, frameOf(numberOf(frame))), 0, `packet ${numberOf(frame)}`);
  }
}

function conserves(subject: Subject, random: Random): void {
  const bench = benchOf(subject, BUFS);
  const [port] = bench.ports;
  const [pair] = bench.local.pairs;
  const got: Uint8Array[] = [];
  port.refuses = (frame) => numberOf(frame) % 5 === 0;
  let sent = 0;
  let given = 0;
  const steps = [
    () => {
      if (sent < PACKETS_EACH_WAY && bench.driver.send(0, frameOf(sent))) sent++;
    },
    () => {
      if (given < PACKETS_EACH_WAY) port.incoming.push(frameOf(given++));
    },
    () => got.push(...bench.take()),
    () => bench.driver.clean(0),
    () => {
      port.room = random(4);
      pair.portWritable();
      bench.local.turn();
    },
    () => {
      if (random(8) > 0) return;
      bench.driver.close();
      const { outstanding } = bench.driver.tx[0];
      assert.equal(outstanding, 0);
      bench.driver.reopen();
    },
  ];
  // Closing reclaims packets that are not sent yet: not in half of the runs.
  const most = steps.length - random(2);
  for (let n = 0; n < 40 * PACKETS_EACH_WAY; n++) steps[random(most)]();
  port.room = Number.POSITIVE_INFINITY;
  for (let idle = 0; idle < 3; idle++) {
    pair.portWritable();
    if (bench.settle() > 0) idle = 0;
    got.push(...bench.take());
    bench.driver.clean(0);
  }
  const reclaimed = bench.driver.tx[0].reclaimedPackets;
  assert.equal(pair.tx.counters[PACKETS], port.sent.length + pair.tx.counters[DROP_PORT]);
  assert.equal(pair.tx.counters[PACKETS] + reclaimed, sent, "sent, refused or reclaimed");
  assert.equal(pair.rx.counters[PACKETS], given);
  if (most < steps.length) {
    expectFrames(
      port.sent,
      [...Array(sent).keys()].filter((number) => number % 5 !== 0),
    );
    expectFrames(got, [...Array(given).keys()]);
  }
  bench.close();
}

const CHECKS: Readonly<Record<string, (subject: Subject) => void>> = {
  "packet is delivered once, in order, or counted in one counter": (subject) => {
    withSeeds(Math.max(4, subject.runs / 5), (random) => conserves(subject, random));
  },

  "ring made anew at a saved position continues with the next packet": (subject) => {
    for (let before = 0; before <= 2 * BUFS; before++) {
      const bench = benchOf(subject, BUFS);
      const [port] = bench.ports;
      const send = (number: number) => assert.ok(bench.driver.send(0, frameOf(number)));
      for (let n = 0; n < before; n++) {
        send(n);
        bench.settle();
      }
      port.room = 3;
      for (let n = 0; n < 5; n++) send(100 + n);
      bench.settle();
      assert.deepEqual(port.sent.slice(before).map(numberOf), [100, 101, 102]);
      const position = bench.nic.queues[1].ring!.save();
      const bytes = bench.driver.contextOf(1);
      const words = new Int32Array(bytes.buffer, bytes.byteOffset, bytes.length >> 2);
      const ring = subject.format.tx({
        ...{ context: new FlatWords(words), bufs: BUFS, memory: bench.memory },
        ...{ counters: newQueueCounters(), features: 0, maxPacket: 1522 },
      });
      ring.restore(position);
      assert.equal(ring.save(), position);
      assert.equal(ring.fill(), 2);
      const batch = new Batch(64);
      assert.equal(ring.gather(batch), 2);
      expectFrames([packetBytes(batch, 0), packetBytes(batch, 1)], [103, 104]);
      ring.consume(batch, 2);
      bench.driver.clean(0);
      assert.equal(bench.driver.tx[0].outstanding, 0);
      bench.close();
    }
  },
};

export function conservationCases(subject: Subject): Case[] {
  return casesOf(subject, CHECKS);
}

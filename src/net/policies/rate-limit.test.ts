/**
 * Rate limits with a simulated clock, a loop of real time, and a TAP: rates, bursts, who waits.
 */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { Bench, TestPort } from "../../../test/support/guest.ts";
import { batchOf, skipTap, TapPair, testFrame } from "../../../test/support/net.ts";
import { type Control, Loop } from "../../engine/loop.ts";
import type { QueuePair } from "../../engine/pair.ts";
import { LIMITED, newQueueCounters } from "../../memory/counters.ts";
import { Batch } from "../../memory/index.ts";
import { mapAnonymous } from "../../os/memory.ts";
import { openTap } from "../../os/tap.ts";
import { SourcePort } from "../synthetic.ts";
import { TapPort } from "../tap.ts";
import { RateLimit, RateLimits, rateLimit } from "./rate-limit.ts";
import type { TokenRate } from "./token-bucket.ts";

const MEMORY = mapAnonymous(1 << 20);
const GRO = 65_550;

const specOf = (rules: string) => rateLimit.parse(rules, { mac: null });
const newCounters = () => ({ tx: newQueueCounters(), rx: newQueueCounters() });

/** Counts what it is given, and gives packets of the lengths that it is told. */
class CountingPort extends TestPort {
  packets = 0;
  bytes = 0;
  /** Of the next received packet. */
  next: () => number = () => 60;

  override send(batch: Batch): number {
    const taken = Math.min(batch.packets, this.room);
    this.room -= taken;
    this.sendBlocked = taken < batch.packets;
    for (let p = 0; p < taken; p++) this.#moved(batch.length[p]);
    return taken;
  }

  override receive(batch: Batch): void {
    this.receiveDrained = false;
    while (batch.nextBuffer() > 0) {
      const length = this.next();
      this.#moved(length);
      batch.endReceived(length);
    }
  }

  #moved(length: number): void {
    this.packets++;
    this.bytes += length;
  }
}

/** A limited port that is polled at random times, on a clock of its own. */
class Simulation {
  now = 1000;
  readonly inner = new CountingPort();
  readonly limits: RateLimits;
  readonly port: RateLimit;
  readonly counters = newCounters();
  readonly #batch = new Batch(64, 64);

  constructor(rules: string) {
    this.limits = new RateLimits(specOf(rules), () => this.now);
    this.port = new RateLimit(this.inner, this.limits, this.counters);
  }

  send(lengths: readonly number[]): number {
    const batch = this.#batch;
    batch.clear();
    for (const length of lengths) batch.push(MEMORY.address, length, batch.packets + 1);
    const sent = this.port.send(batch);
    assert.deepEqual([batch.packets, batch.segments], [lengths.length, lengths.length]);
    return sent;
  }

  receive(): void {
    const batch = this.#batch;
    batch.clear();
    for (let n = 0; n < 64; n++) batch.addSegment(MEMORY.address, GRO);
    this.port.receive(batch);
  }
}

/** Of each instant: what had passed since the start. */
interface Passed {
  readonly at: number;
  readonly before: number;
  readonly after: number;
}

/** In no window more passes than a burst, what the rate gives, and `beyond`. */
function checkBursts(passed: readonly Passed[], { rate, burst }: TokenRate, beyond: number): void {
  // With x = after - rate * t, no x is more than burst + beyond above the least one before it.
  let least = Number.POSITIVE_INFINITY;
  for (const { at, before, after } of passed) {
    least = Math.min(least, before - (rate * at) / 1000);
    const above = after - (rate * at) / 1000 - least;
    assert.ok(above <= burst + beyond + 1e-3, `${above} of ${burst} and ${beyond} at ${at}`);
  }
}

const STEPS = 4000;
const lengthsFrom = fc.oneof(
  fc.record({ least: fc.constant(60), most: fc.integer({ min: 60, max: 1514 }) }),
  fc.record({ least: fc.constant(60), most: fc.constant(GRO) }),
);
const rates = fc.record({
  bytes: fc.integer({ min: 10_000, max: 10_000_000_000 }),
  packets: fc.integer({ min: 10, max: 5_000_000 }),
});

describe("a rate limit", () => {
  for (const direction of ["tx", "rx"] as const) {
    test(`${direction}: is exact and bounds bursts when packets wait all the time`, () => {
      fc.assert(
        fc.property(rates, lengthsFrom, fc.nat(1 << 30), ({ bytes, packets }, range, seed) => {
          const rules = `${direction}-bytes=${bytes},${direction}-packets=${packets}`;
          const { bytes: byBytes, packets: byPackets } = specOf(rules)[direction];
          const sim = new Simulation(rules);
          let random = seed;
          const next = (below: number): number => {
            random = (Math.imul(random, 1664525) + 1013904223) >>> 0;
            return Math.floor((random / 2 ** 32) * below);
          };
          const length = () => range.least + next(range.most - range.least + 1);
          sim.inner.next = length;
          const seen: { bytes: Passed[]; packets: Passed[] } = { bytes: [], packets: [] };
          let waiting = Array.from({ length: 64 }, length);
          const start = { at: sim.now, bytes: 0, packets: 0 };
          for (let step = 0; step < STEPS; step++) {
            const { inner } = sim;
            const before = { bytes: inner.bytes, packets: inner.packets };
            if (direction === "tx") {
              waiting = waiting.slice(sim.send(waiting));
              while (waiting.length < 64) waiting.push(length());
            } else sim.receive();
            const [at] = [sim.now];
            seen.bytes.push({ at, before: before.bytes, after: inner.bytes });
            seen.packets.push({ at, before: before.packets, after: inner.packets });
            const held = direction === "tx" ? sim.port.sendHeldMs : sim.port.receiveHeldMs;
            // As the loop sleeps: whole milliseconds, and not exactly.
            sim.now += held === 0 ? 0.001 : Math.ceil(held) + next(50) / 100;
            // The first burst is not part of the rate.
            if (step === STEPS / 2) {
              Object.assign(start, { at: sim.now, bytes: inner.bytes, packets: inner.packets });
            }
          }
          // A sent packet is known before; a received one may exceed what is left.
          checkBursts(seen.bytes, byBytes as TokenRate, direction === "rx" ? GRO : 2 * GRO);
          checkBursts(seen.packets, byPackets as TokenRate, 0);
          const seconds = (sim.now - start.at) / 1000;
          if (seconds < 0.5) return;
          const used = Math.max(
            (sim.inner.bytes - start.bytes) / (byBytes as TokenRate).rate,
            (sim.inner.packets - start.packets) / (byPackets as TokenRate).rate,
          );
          const slack = (3 * GRO) / bytes + 2 / packets;
          assert.ok(
            Math.abs(used - seconds) <= 0.02 * seconds + slack,
            `${used} s of ${seconds} s`,
          );
        }),
        { numRuns: process.env.BPFHV_FULL === "1" ? 1000 : 60 },
      );
    });
  }

  test("lets a packet through that is longer than a burst, and makes up for it after", () => {
    const sim = new Simulation("tx-bytes=1M/2000");
    assert.equal(sim.send([60_000, 60]), 1);
    assert.equal(sim.port.sendBlocked, true);
    assert.ok(Math.abs(sim.port.sendHeldMs - 58.06) < 0.01, `${sim.port.sendHeldMs}`);
    sim.now += sim.port.sendHeldMs;
    assert.equal(sim.port.sendHeldMs, 0);
    assert.equal(sim.send([60]), 1);
  });

  test("leaves it to the port when the port blocks, and takes tokens for what was sent", () => {
    const sim = new Simulation("tx-packets=1000/10");
    sim.inner.room = 3;
    assert.equal(sim.send([60, 60, 60, 60, 60]), 3);
    assert.deepEqual([sim.port.sendBlocked, sim.port.sendHeldMs], [true, 0]);
    sim.inner.room = 100;
    assert.equal(sim.send(Array.from({ length: 20 }, () => 60)), 7);
    assert.deepEqual([sim.port.sendBlocked, sim.port.sendHeldMs], [true, 1]);
    assert.equal(sim.counters.tx[LIMITED], 1);
  });

  test("keeps tokens that were taken when other limits are set", () => {
    const sim = new Simulation("tx-packets=1000/100");
    assert.equal(sim.send(Array.from({ length: 64 }, () => 60)), 64);
    sim.limits.set(specOf("tx-packets=500/80"));
    const other = new RateLimit(sim.inner, sim.limits, sim.counters);
    const batch = new Batch(64, 64);
    for (let p = 0; p < 64; p++) batch.push(MEMORY.address, 60, p + 1);
    assert.equal(other.send(batch), 36);
  });

  test("shares the rate among queues when all have packets", () => {
    let now = 0;
    const limits = new RateLimits(specOf("tx-bytes=10M/100k"), () => now);
    const queues = Array.from({ length: 8 }, () => {
      const inner = new CountingPort();
      return { inner, port: new RateLimit(inner, limits, newCounters()) };
    });
    const batch = new Batch(64, 64);
    for (let p = 0; p < 64; p++) batch.push(MEMORY.address, 1500, p + 1);
    for (; now < 10_000; now += 0.1) {
      for (const { port } of queues) if (port.sendHeldMs === 0) port.send(batch);
    }
    const bytes = queues.map(({ inner }) => inner.bytes);
    const sum = bytes.reduce((a, b) => a + b);
    assert.ok(Math.abs(sum - 100_000_000) < 2_000_000, `${sum}`);
    for (const each of bytes) assert.ok(Math.abs(each / (sum / 8) - 1) < 1 / 3, `${bytes}`);
  });

  test("goes on with the tokens of a process before when a record is restored", () => {
    const before = new Simulation("tx-packets=1000/100,rx-packets=1000/100");
    before.send(Array.from({ length: 64 }, () => 60));
    before.receive();
    const after = new Simulation("tx-packets=1000/100,rx-packets=1000/100");
    after.port.prepare("rate", JSON.parse(JSON.stringify(before.port.save())))();
    assert.equal(after.send(Array.from({ length: 64 }, () => 60)), 36);
    after.receive();
    assert.equal(after.inner.packets, 36 + 36);
    assert.throws(() => after.port.prepare("rate", { version: 1, tx: [-1, 0], rx: [0, 0] }), {
      code: "RECORD",
    });
  });

  for (const [rules, message] of [
    ["tx=1M", /"tx=1M": use each of tx-bytes, tx-packets/],
    ["tx-bytes=1M,tx-bytes=2M", /at most once/],
    ["tx-bytes=fast", /tx-bytes: "fast": use a number from 1 to 1000G/],
    ["tx-bytes=0", /use a number from 1/],
    ["rx-bytes=1G/1k", /burst 1k: use at least 2000000/],
    ["rx-packets=1M/", /rx-packets: "": use a number/],
    ["", /"": use each of/],
  ] as const) {
    test(`refuses "${rules}"`, () => {
      assert.throws(() => specOf(rules), { code: "PORT", message });
    });
  }
});

/** Turns a loop for some time. */
function runFor(pairs: readonly QueuePair[], ms: number, each: () => void = () => {}): Loop {
  const end = performance.now() + ms;
  const control: Control = {
    timeoutMs: 1,
    register: () => {},
    handle: () => {
      each();
      if (performance.now() >= end) loop.stop();
      return 0;
    },
  };
  const loop = new Loop({ pairs, control });
  loop.run();
  loop.close();
  return loop;
}

describe("a loop behind a rate limit", () => {
  test("makes the guest wait when it sends more, and loses nothing", () => {
    const bench = new Bench();
    bench.driver.open();
    const [pair] = bench.local.pairs;
    const limits = new RateLimits(specOf("tx-packets=20k/400"));
    const counters = { tx: pair.tx.counters, rx: pair.rx.counters };
    pair.setPolicies(new RateLimit(bench.ports[0], limits, counters));
    const frame = new Uint8Array(60);
    let sent = 0;
    let refused = 0;
    const start = performance.now();
    runFor([pair], 500, () => {
      bench.driver.clean(0);
      for (let n = 0; n < 100; n++) {
        if (bench.driver.send(0, frame)) sent++;
        else refused++;
      }
    });
    const seconds = (performance.now() - start) / 1000;
    const arrived = bench.ports[0].sent.length;
    const expected = 400 + 20_000 * seconds;
    assert.ok(arrived <= expected + 1, `${arrived} of ${expected}`);
    assert.ok(refused > 0, "the ring was full");
    limits.set(specOf("rx-packets=1M"));
    pair.setPolicies(bench.ports[0]);
    for (let n = 0; n < 100; n++) bench.settle();
    assert.equal(bench.ports[0].sent.length, sent);
    assert.ok(pair.tx.counters[LIMITED] > 0);
    bench.close();
  });

  test("sleeps when nothing moves or packets are held", () => {
    const bench = new Bench();
    bench.driver.open();
    const [pair] = bench.local.pairs;
    const limits = new RateLimits(specOf("tx-packets=10/1,rx-packets=10/1"));
    const port = new SourcePort({ frame: new Uint8Array(60) });
    const counters = { tx: pair.tx.counters, rx: pair.rx.counters };
    pair.setPolicies(new RateLimit(port, limits, counters));
    for (let n = 0; n < 50; n++) bench.driver.send(0, new Uint8Array(60));
    const cpu = process.cpuUsage();
    runFor([pair], 500);
    const { user, system } = process.cpuUsage(cpu);
    assert.ok(user + system < 250_000, `${user + system} µs of CPU in 500 ms`);
    assert.ok(bench.take().length <= 7);
    bench.close();
  });
});

/** What has arrived, and when: the rate is that from the first arrival to the last one. */
class Arrivals {
  #first = 0;
  #last = 0;
  #before = 0;
  #sum = 0;

  add(count: number): void {
    if (count === 0) return;
    this.#last = performance.now();
    this.#sum += count;
    if (this.#first > 0) return;
    this.#first = this.#last;
    this.#before = this.#sum;
  }

  get perSecond(): number {
    return ((this.#sum - this.#before) * 1000) / (this.#last - this.#first);
  }
}

describe("a rate limit on a TAP", { skip: skipTap() }, () => {
  const SECONDS = process.env.BPFHV_FULL === "1" ? 10 : 2;
  // Its burst bridges the time that other processes take from this one.
  for (const [direction, rules, rate] of [
    ["tx", "tx-packets=5k/5k,rx-packets=1", 5000],
    ["rx", "tx-packets=1,rx-bytes=4M/4M", 4_000_000],
  ] as const) {
    test(`${direction}: gives the receiver the rate within 2 % when packets wait all the time`, (t) => {
      const pair = new TapPair();
      const tap = new TapPort(
        openTap({ name: "nic", vnetHeader: 0, offloads: 0, netns: pair.netns }),
      );
      pair.waitForBridge(tap.fd);
      const bench = new Bench();
      bench.driver.open();
      const [queues] = bench.local.pairs;
      const counters = { tx: queues.tx.counters, rx: queues.rx.counters };
      queues.setPolicies(new RateLimit(tap, new RateLimits(specOf(rules)), counters));
      const frame = testFrame(1, 1400);
      let arrivals = new Arrivals();
      const work = () => {
        bench.driver.clean(0);
        if (direction === "tx") while (bench.driver.send(0, frame));
        else for (let n = 0; n < 64 && pair.give(frame) > 0; n++);
        let bytes = 0;
        bench.driver.receive(0, (got) => {
          bytes += got.length;
        });
        arrivals.add(direction === "tx" ? pair.take().length : bytes);
      };
      // Until the first burst is over.
      while (queues[direction].counters[LIMITED] === 0) runFor([queues], 10, work);
      arrivals = new Arrivals();
      runFor([queues], SECONDS * 1000, work);
      const got = arrivals.perSecond;
      t.diagnostic(`${got} of ${rate} a second`);
      assert.equal(tap.dropped, 0);
      bench.close();
      tap.close();
      pair.close();
      assert.ok(Math.abs(got / rate - 1) < 0.02, `${got} of ${rate} a second`);
    });
  }
});

test("a batch of a limited port has the packets that it had when only some of them go", () => {
  const sim = new Simulation("tx-packets=1000/10");
  const { batch, memory } = batchOf(
    Array.from({ length: 20 }, (_, n) => testFrame(n, 60 + n)),
    false,
  );
  assert.equal(sim.port.send(batch), 10);
  assert.equal(batch.packets, 20);
  assert.equal(sim.inner.bytes, 60 * 10 + 45);
  memory.unmap();
});

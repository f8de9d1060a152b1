/**
 * Interrupts across down and up, for a driver like the original, which arms nothing when it
 * opens. It may also close with interrupts off, because a poll that used its whole budget
 * leaves them off for the next one. Contexts are not registered again in between: the
 * driver finds in them what the programs left.
 */
import assert from "node:assert/strict";
import { FEATURES } from "../abi/index.ts";
import { RING_ERRORS } from "../memory/counters.ts";
import { Bench, frameOf, numberOf } from "./bench.ts";
import { type Case, type Random, type Subject, withSeeds } from "./case.ts";

const BUFFER = 512;
const RX_VECTOR = 0;
const TX_VECTOR = 1;
/** Free buffers at which the original's poll refills the ring. */
const REFILL_AT = 16;
/** Free buffers below which its transmit queue stops: MAX_SKB_FRAGS + 2, less on a small ring. */
const stopBelow = (bufs: number): number => Math.min(19, bufs / 2);

/** The original driver without TX NAPI: its transmit interrupt only wakes the queue. */
class OriginalDriver {
  readonly bench: Bench;
  readonly #bufs: number;
  readonly #sg: boolean;
  #vectorsSeen = 0;
  #sent = 0;
  isOpen = false;
  /** NAPI is scheduled: a poll follows. */
  scheduled = false;
  /** The transmit queue is stopped: only an interrupt wakes it. */
  stopped = false;
  readonly received: number[] = [];

  constructor({ format, form }: Subject, bufs: number) {
    this.bench = new Bench({
      ...{ device: format, form, config: { rxBufs: bufs, txBufs: bufs }, mib: 4 },
      guest: { bufferSize: BUFFER, features: format.features },
    });
    this.#bufs = bufs;
    this.#sg = (format.features & FEATURES.SG) !== 0;
    this.bench.driver.open();
    this.isOpen = true;
  }

  #frame(number: number): Uint8Array {
    return this.#sg ? frameOf(number) : frameOf(number).subarray(0, BUFFER);
  }

  arrive(number: number): void {
    this.bench.ports[0].incoming.push(this.#frame(number));
  }

  /** Runs the host, then handles the interrupts. @returns those of the receive queue */
  host(): number {
    this.bench.settle();
    const fresh = this.bench.vectors.slice(this.#vectorsSeen);
    this.#vectorsSeen = this.bench.vectors.length;
    if (!this.isOpen) return 0;
    if (fresh.includes(RX_VECTOR)) this.scheduled = true;
    if (fresh.includes(TX_VECTOR)) this.stopped = false;
    return fresh.filter((vector) => vector === RX_VECTOR).length;
  }

  /** Refills, enables, and switches NAPI on. No program arms anything. */
  open(): void {
    this.bench.driver.refill(0);
    this.bench.driver.enable();
    this.isOpen = true;
  }

  poll(budget: number): void {
    const { driver } = this.bench;
    const [ring] = driver.rx;
    ring.arm(0);
    let done = 0;
    for (; done < budget && this.#collectOne(); done++)
      if (ring.free >= REFILL_AT) driver.refill(0);
    if (done < budget) this.scheduled = ring.arm(1);
  }

  #collectOne(): boolean {
    const { driver, memory } = this.bench;
    const [ring] = driver.rx;
    let number = -1;
    const took = ring.collect((id, length) => {
      if (number < 0) number = numberOf(memory.bytes(ring.addressOf(id), length));
    });
    if (took > 0) this.received.push(number);
    return took > 0;
  }

  /** Sends until `count` are outstanding or the queue stops. */
  send(count: number): void {
    const { driver } = this.bench;
    const [ring] = driver.tx;
    for (let n = 0; n < count && !this.stopped; n++) {
      driver.clean(0);
      if (!driver.send(0, this.#frame(this.#sent))) return;
      this.#sent++;
      if (ring.free >= stopBelow(this.#bufs)) continue;
      this.stopped = !ring.arm(1 + Math.floor((this.#bufs - ring.free) / 2));
    }
  }

  /** Closes. A scheduled poll is cancelled. */
  close(): void {
    const { driver } = this.bench;
    driver.disable();
    driver.clean(0);
    while (this.#collectOne());
    driver.tx[0].reclaim();
    driver.rx[0].reclaim();
    this.isOpen = false;
    this.scheduled = false;
    this.stopped = false;
    assert.equal(driver.tx[0].outstanding, 0, "transmit buffers are missing");
    assert.equal(driver.rx[0].outstanding, 0, "receive buffers are missing");
  }

  /** Checks that no packet waits for an interrupt that does not come. */
  expectAwake(): void {
    this.host();
    if (!this.isOpen) return;
    if (!this.scheduled) {
      assert.equal(this.#collectOne(), false, "a packet is complete, without an interrupt");
    }
    if (this.bench.ports[0].room > 0) assert.equal(this.stopped, false, "all was sent");
    const [pair] = this.bench.local.pairs;
    assert.equal(pair.rx.counters[RING_ERRORS] + pair.tx.counters[RING_ERRORS], 0);
  }
}

type Step =
  | readonly ["arrive" | "poll" | "send", number]
  | readonly ["room", number]
  | readonly ["host" | "toggle" | "reopen"];

const STEPS: readonly ((random: Random) => Step)[] = [
  (random) => ["arrive", 1 + random(20)],
  (random) => ["poll", [1, 2, 3, 8, 64][random(5)]],
  (random) => ["send", 1 + random(20)],
  (random) => ["room", [0, 3, 1000][random(3)]],
  () => ["host"],
  () => ["toggle"],
  () => ["reopen"],
];

function take(driver: OriginalDriver, step: Step, arrived: number): number {
  switch (step[0]) {
    case "arrive":
      for (let n = 0; n < step[1]; n++) driver.arrive(arrived + n);
      return step[1];
    case "poll":
      if (driver.isOpen && driver.scheduled) driver.poll(step[1]);
      break;
    case "send":
      if (driver.isOpen) driver.send(step[1]);
      break;
    case "room":
      driver.bench.ports[0].room = step[1];
      driver.bench.local.pairs[0].portWritable();
      break;
    case "host":
      driver.expectAwake();
      break;
    case "toggle":
      if (driver.isOpen) driver.close();
      else driver.open();
      break;
    case "reopen":
      if (driver.isOpen) driver.close();
      driver.open();
  }
  return 0;
}

/** How a driver uses interrupts before it closes. */
const BEFORE_CLOSE: readonly (readonly [string, (driver: OriginalDriver) => void])[] = [
  ["while it waits for an interrupt", (driver) => driver.poll(64)],
  ["in the middle of a poll", (driver) => driver.poll(2)],
  ["before its first poll", () => {}],
];

function interruptsOnFirst(subject: Subject, before: (driver: OriginalDriver) => void): void {
  const driver = new OriginalDriver(subject, 16);
  // Five packets an iteration: each lap, and each half of a lap, reopens at other slots.
  for (let iteration = 0; iteration < 40; iteration++) {
    for (let n = 0; n < 5; n++) driver.arrive(n);
    driver.send(3);
    driver.host();
    before(driver);
    driver.close();
    driver.open();
    assert.equal(driver.host(), 0, `iteration ${iteration}: nothing came`);
    driver.arrive(900);
    assert.ok(driver.host() > 0, `iteration ${iteration}: no interrupt for the first packet`);
    driver.poll(64);
    assert.equal(driver.received.at(-1), 900);
    driver.send(1);
    const { vectors } = driver.bench;
    const seen = vectors.length;
    driver.host();
    assert.ok(vectors.includes(TX_VECTOR, seen), `iteration ${iteration}: none for the first sent`);
  }
  driver.bench.close();
}

function staysAwake(subject: Subject): void {
  withSeeds(subject.runs, (random) => {
    const driver = new OriginalDriver(subject, 64);
    let arrived = 0;
    for (let left = random(60); left > 0; left--) {
      arrived += take(driver, STEPS[random(STEPS.length)](random), arrived);
    }
    // All packets that came get through in the end, once and in order.
    driver.bench.ports[0].room = 1000;
    driver.bench.local.pairs[0].portWritable();
    if (!driver.isOpen) driver.open();
    driver.expectAwake();
    for (let n = 0; driver.host() >= 0 && driver.scheduled && n < 1000; n++) driver.poll(64);
    assert.deepEqual(driver.received, [...Array(arrived).keys()]);
    driver.bench.close();
  });
}

/** A driver that arms nothing when it opens finds the interrupts as after registration. */
export function reopenCases(subject: Subject): Case[] {
  return [
    ...BEFORE_CLOSE.map(([when, before]) => ({
      name: `first packet interrupts when a driver that arms nothing closed ${when}`,
      run: () => interruptsOnFirst(subject, before),
    })),
    {
      name: "no packet waits without an interrupt when open, poll, close and host take turns",
      run: () => staysAwake(subject),
    },
  ];
}

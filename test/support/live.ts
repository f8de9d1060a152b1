/**
 * A guest under load in both directions, in this process: every packet has a number and says which
 * set it was sent in, so that what is lost, repeated, overtaken or mixed is found.
 */
import assert from "node:assert/strict";
import type { RingFormat } from "../../src/devices/format.ts";
import type { QueuePair } from "../../src/engine/pair.ts";
import { GuestDriver } from "../../src/guest/driver.ts";
import { LocalMemory } from "../../src/guest/memory.ts";
import type { Batch } from "../../src/memory/index.ts";
import { packetBytes, receiveCopy } from "../../src/net/base.ts";
import { LocalNic } from "../../src/nic/local.ts";
import { type Random, randomFrom } from "../../src/suite/case.ts";
import { TestPort } from "./guest.ts";

export { type Random, randomFrom };

const NUMBER = 14;
const GENERATION = 18;

function frame(number: number, generation: number): Uint8Array {
  const bytes = new Uint8Array(60 + (number % 1400));
  const view = new DataView(bytes.buffer);
  view.setUint32(NUMBER, number);
  view.setUint32(GENERATION, generation);
  bytes.fill(number & 0xff, 22);
  return bytes;
}

const words = (bytes: Uint8Array) => new DataView(bytes.buffer, bytes.byteOffset, bytes.length);

/** What one end of one direction of a queue has seen. */
export class Stream {
  expected = 0;
  lost = 0;
  repeated = 0;
  /** Packets that were sent in one set and arrived by the ring of another. */
  mixed = 0;
  damaged = 0;

  arrived(bytes: Uint8Array, generation: number): void {
    const number = words(bytes).getUint32(NUMBER);
    if (words(bytes).getUint32(GENERATION) !== generation) this.mixed++;
    const whole = bytes.length === 60 + (number % 1400) && bytes.at(-1) === (number & 0xff);
    if (!whole) this.damaged++;
    if (number < this.expected) {
      this.repeated++;
      return;
    }
    this.lost += number - this.expected;
    this.expected = number + 1;
  }
}

/** A TAP-like port: blocks when it has no room, and stamps what it gives the guest. */
class LivePort extends TestPort {
  readonly outgoing = new Stream();
  given = 0;
  waiting = 0;
  /** Of the ring that the host uses. */
  txGeneration: () => number = () => 0;
  rxGeneration: () => number = () => 0;

  override send(batch: Batch): number {
    this.sendBlocked = false;
    const generation = this.txGeneration();
    for (let p = 0; p < batch.packets; p++) {
      if (this.room <= 0) {
        this.sendBlocked = true;
        return p;
      }
      this.room--;
      this.outgoing.arrived(packetBytes(batch, p), generation);
    }
    return batch.packets;
  }

  override receive(batch: Batch): void {
    const generation = this.rxGeneration();
    while (this.waiting > 0 && batch.nextBuffer() > 0) {
      if (!receiveCopy(batch, frame(this.given, generation))) this.tooLong++;
      this.given++;
      this.waiting--;
    }
    this.receiveDrained = this.waiting === 0;
  }
}

export interface LiveOptions {
  readonly device: RingFormat;
  readonly pairs?: number;
  readonly bufs?: number;
  readonly overlap?: boolean;
  readonly features?: number;
  readonly mib?: number;
}

export class Live {
  readonly memory: LocalMemory;
  readonly ports: readonly LivePort[];
  readonly local: LocalNic;
  driver: GuestDriver;
  readonly incoming: readonly Stream[];
  readonly sent: number[];
  /** Cuts, and those of them that found packets on their way in the ring that retires. */
  readonly #driver: { readonly overlap: boolean; readonly features: number };
  readonly cuts = { all: 0, inFlight: 0 };

  constructor({ device, pairs = 1, bufs = 64, overlap = true, features, mib }: LiveOptions) {
    this.memory = new LocalMemory((mib ?? 64) << 20);
    this.ports = Array.from({ length: pairs }, () => new LivePort());
    const config = { rxBufs: bufs, txBufs: bufs };
    const { memory, ports } = this;
    this.local = new LocalNic({ device, memory, ports, config });
    for (const [q, port] of ports.entries()) {
      const { tx, rx } = this.local.pairs[q];
      port.txGeneration = () => this.#generation(tx.next === null && !tx.draining);
      port.rxGeneration = () => this.#generation(rx.next === null);
    }
    this.#driver = { overlap, features: features ?? 0xffff };
    this.driver = new GuestDriver(this.local, memory, this.#driver);
    this.incoming = ports.map(() => new Stream());
    this.sent = ports.map(() => 0);
  }

  /** @param moved the queue has moved on to the ring of the next set */
  #generation(moved: boolean): number {
    const { running, wanted, upgrade } = this.local.nic;
    return moved && upgrade.phase === "cutting" && wanted !== null ? wanted.id : running.id;
  }

  /** Another driver finds the NIC, as after a reboot. */
  rebind(): void {
    this.driver = new GuestDriver(this.local, this.memory, this.#driver);
    this.driver.open();
  }

  get nic() {
    return this.local.nic;
  }

  pair(queue: number): QueuePair {
    return this.local.pairs[queue];
  }

  /** @returns false if the ring is full */
  send(queue: number): boolean {
    const { generation } = this.driver.tx[queue];
    if (!this.driver.send(queue, frame(this.sent[queue], generation))) return false;
    this.sent[queue]++;
    return true;
  }

  take(queue: number, most?: number): void {
    const check = this.incoming[queue];
    this.driver.receive(queue, (bytes, _, ring) => check.arrived(bytes, ring.generation), most);
    this.driver.clean(queue);
  }

  /** One step of the driver's upgrade. */
  step(): boolean {
    if (this.driver.upgrade.phase === "cut") this.#countCut();
    return this.driver.upgrade.step();
  }

  #countCut(): void {
    const { queues, pairs } = this.nic;
    const queue = queues.slice(pairs.length).find(({ next }) => next !== null);
    this.cuts.all++;
    if (queue !== undefined) {
      if ((queue.current?.ring?.fill() ?? 0) > 0) this.cuts.inFlight++;
      return;
    }
    const q = queues.findIndex(({ next }) => next !== null);
    const { expected } = this.incoming[q];
    if (this.ports[q].given > expected) this.cuts.inFlight++;
  }

  /** Everything arrives that is on its way. */
  settle(): void {
    for (const port of this.ports) port.room = Number.POSITIVE_INFINITY;
    for (let idle = 0; idle < 3; idle++) {
      for (const pair of this.local.pairs) pair.portWritable();
      if (this.local.turn() > 0) idle = 0;
      for (const queue of this.ports.keys()) this.take(queue);
    }
  }

  /** Packets that were lost, repeated or overtaken, or that arrived damaged or by a wrong ring. */
  get wrong(): { lost: number; repeated: number; mixed: number; damaged: number } {
    const sum = { lost: 0, repeated: 0, mixed: 0, damaged: 0 };
    for (const [q, { outgoing, given, tooLong, dropped }] of this.ports.entries()) {
      const missing = this.sent[q] - outgoing.expected + given - this.incoming[q].expected;
      sum.lost += missing + tooLong + dropped;
      for (const stream of [outgoing, this.incoming[q]]) {
        sum.lost += stream.lost;
        sum.repeated += stream.repeated;
        sum.mixed += stream.mixed;
        sum.damaged += stream.damaged;
      }
    }
    return sum;
  }

  check(what: string): void {
    this.settle();
    assert.deepEqual(this.wrong, { lost: 0, repeated: 0, mixed: 0, damaged: 0 }, what);
  }

  get packets(): number {
    return this.ports.reduce((sum, { given }, q) => sum + given + this.sent[q], 0);
  }

  close(): void {
    this.nic.detach();
    this.memory.close();
  }
}

/**
 * sring, host half: TX and RX rings over a mapped context.
 *
 * The guest's words are hostile. `prod` is loaded once per batch and checked: more than n entries ahead
 * means a lying guest and stops the queue. Our own index lives here, not in the context; `qmask` and
 * `cons` in the context are written for the guest and, while the queue runs, never read back. A
 * descriptor's fields are each loaded once, then validated together.
 */
import { PRIVATE_OFFSET } from "../../abi/index.ts";
import { type Batch, type GuestMemory, translateHalves } from "../../memory/index.ts";
import {
  BATCHES,
  BYTES,
  DROP_BAD_ADDRESS,
  DROP_BAD_LENGTH,
  PACKETS,
  type QueueCounters,
  RING_ERRORS,
} from "../counters.ts";
import type { QueueConfig, RxHalf, TxHalf } from "../device.ts";
import { SRING, SRING_DESC, sringContextSize } from "./layout.ts";

/** Indices of 32-bit words in a context. */
const word = (offset: number): number => (PRIVATE_OFFSET + offset) >> 2;
const PROD = word(SRING.prod.offset);
const INTR = word(SRING.intr.offset);
const CONS = word(SRING.cons.offset);
const KICK = word(SRING.kick_enabled.offset);
const QMASK = word(SRING.qmask.offset);
const CLEAR = word(SRING.clear.offset);
const DESCRIPTORS = word(SRING.size);
const DESC_WORDS = SRING_DESC.size >> 2;
const PADDR_LOW = SRING_DESC.paddr.offset >> 2;
const PADDR_HIGH = PADDR_LOW + 1;
const LEN = SRING_DESC.len.offset >> 2;

/** An Ethernet header; anything shorter is no packet. */
const MIN_PACKET = 14;
/** No packet without segmentation is longer; also keeps lengths small integers. */
const MAX_PACKET = 65536;

export function initialiseSring(direction: "rx" | "tx", context: ArrayBuffer, bufs: number): void {
  const words = new Int32Array(context);
  words.fill(0, PRIVATE_OFFSET >> 2);
  words[QMASK] = bufs - 1;
  words[KICK] = 1;
  words[INTR] = direction === "rx" ? 1 : 0;
  Atomics.store(words, CONS, 0);
}

/** What both directions share: indices, kicks, and the check of the guest's producer index. */
abstract class SringHalf {
  broken = false;
  protected readonly words: Int32Array;
  protected readonly bufs: number;
  protected readonly mask: number;
  protected readonly memory: GuestMemory;
  protected readonly counters: QueueCounters;
  /** Next slot to use. The context's `cons` is a copy for the guest, never read back. */
  protected cons = 0;
  /** What the context's `cons` says: completions up to here are published. */
  protected published = 0;
  /** The guest's `prod` as last loaded. */
  protected prod = 0;

  constructor(config: QueueConfig) {
    const needed = sringContextSize(config.bufs);
    if (config.context.byteLength < needed) {
      throw new RangeError(`context of ${config.context.byteLength} bytes: sring needs ${needed}`);
    }
    this.words = new Int32Array(config.context);
    this.bufs = config.bufs;
    this.mask = config.bufs - 1;
    this.memory = config.memory;
    this.counters = config.counters;
  }

  /** Loads the guest's producer index. @returns published entries not yet used; 0 where it lies. */
  protected available(): number {
    this.prod = Atomics.load(this.words, PROD);
    if (this.broken) return 0;
    const published = (this.prod - this.cons) >>> 0;
    if (published > this.bufs) {
      this.broken = true;
      this.counters[RING_ERRORS]++;
      return 0;
    }
    return published;
  }

  pending(): boolean {
    return this.available() > 0;
  }

  /** Consumer's half of the suppression pattern: store the wish, full barrier, look again. */
  enableKicks(): boolean {
    // Atomics.store is sequentially consistent: it is the full barrier before the load of `prod`.
    Atomics.store(this.words, KICK, 1);
    if (this.available() === 0) return false;
    Atomics.store(this.words, KICK, 0);
    return true;
  }

  disableKicks(): void {
    Atomics.store(this.words, KICK, 0);
  }

  save(): number {
    return this.cons >>> 0;
  }

  restore(position: number): void {
    this.cons = position | 0;
    this.publish();
  }

  resync(): void {
    // Whatever the guest wrote: an index that does not fit its `prod` is caught where that is loaded.
    this.cons = Atomics.load(this.words, CONS);
    this.published = this.cons;
  }

  /**
   * Publishes completions. Atomics.store is sequentially consistent: what was written to descriptors is
   * visible before it, and it is the full barrier before the caller looks at the guest's wish.
   */
  protected publish(): void {
    Atomics.store(this.words, CONS, this.cons);
    this.published = this.cons;
  }

  /**
   * A descriptor that is no packet: passed over and counted, once. Completion is in ring order, so that
   * can only happen in front of the batch; behind good ones it ends the batch and is met again.
   */
  protected passOver(slot: number, next: number, length: number): void {
    const bad = length < MIN_PACKET || length > MAX_PACKET ? DROP_BAD_LENGTH : DROP_BAD_ADDRESS;
    this.counters[bad]++;
    this.words[slot + LEN] = 0;
    this.cons = next;
  }

  protected line(name: string, wish: string): string {
    const at = (index: number) => Atomics.load(this.words, index) >>> 0;
    return (
      `${name} cl ${at(CLEAR)} co ${this.cons >>> 0} pr ${at(PROD)} ` +
      `kick ${at(KICK)} ${wish} ${at(INTR)}`
    );
  }
}

export class SringTx extends SringHalf implements TxHalf {
  gather(batch: Batch): number {
    const { words, mask, memory } = this;
    let index = this.cons;
    for (let left = this.available(); left > 0 && batch.packets < batch.maxPackets; left--) {
      const slot = DESCRIPTORS + (index & mask) * DESC_WORDS;
      const length = words[slot + LEN];
      const low = words[slot + PADDR_LOW];
      const high = words[slot + PADDR_HIGH];
      index = (index + 1) | 0;
      const sane = length >= MIN_PACKET && length <= MAX_PACKET;
      const address = sane ? translateHalves(memory, low, high, length, false) : 0;
      if (address !== 0) batch.push(address, length, index);
      else if (batch.packets === 0) this.passOver(slot, index, length);
      else break;
    }
    return batch.packets;
  }

  consume(batch: Batch, count: number): boolean {
    const { counters } = this;
    if (count > 0) {
      this.cons = batch.cursor[count - 1];
      counters[PACKETS] += count;
      counters[BATCHES]++;
      for (let p = 0; p < count; p++) counters[BYTES] += batch.length[p];
    }
    const old = this.published;
    if (this.cons === old) return false;
    this.publish();
    const interruptAt = Atomics.load(this.words, INTR);
    return (this.cons - interruptAt - 1) >>> 0 < (this.cons - old) >>> 0;
  }

  dump(): string {
    return this.line("sring.txq", "intr_at");
  }
}

export class SringRx extends SringHalf implements RxHalf {
  offer(batch: Batch, max: number): number {
    const { words, mask, memory } = this;
    const limit = Math.min(batch.maxPackets, max);
    let index = this.cons;
    for (let left = this.available(); left > 0 && batch.packets < limit; left--) {
      const slot = DESCRIPTORS + (index & mask) * DESC_WORDS;
      const length = words[slot + LEN];
      const low = words[slot + PADDR_LOW];
      const high = words[slot + PADDR_HIGH];
      index = (index + 1) | 0;
      const sane = length >= MIN_PACKET && length <= MAX_PACKET;
      const address = sane ? translateHalves(memory, low, high, length, true) : 0;
      if (address !== 0) batch.push(address, length, index);
      else if (batch.packets === 0) this.passOver(slot, index, length);
      else break;
    }
    return batch.packets;
  }

  deliver(batch: Batch, count: number): boolean {
    const { words, mask, counters } = this;
    for (let p = 0; p < count; p++) {
      const slot = DESCRIPTORS + ((batch.cursor[p] - 1) & mask) * DESC_WORDS;
      words[slot + LEN] = batch.length[p];
      counters[BYTES] += batch.length[p];
    }
    if (count > 0) {
      this.cons = batch.cursor[count - 1];
      counters[PACKETS] += count;
      counters[BATCHES]++;
    }
    if (this.cons === this.published) return false;
    this.publish();
    return Atomics.load(words, INTR) !== 0;
  }

  dump(): string {
    return this.line("sring.rxq", "intr");
  }
}

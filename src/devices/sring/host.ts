/**
 * sring, host half: TX and RX rings over a mapped context.
 *
 * The guest's words are hostile. `prod` is loaded once per batch and checked: more than n entries ahead
 * means a lying guest and stops the queue. Our own index lives here, not in the context; `qmask` and
 * `cons` in the context are written for the guest and, while the queue runs, never read back. A
 * descriptor's fields are each loaded once, then validated together.
 */

import {
  BATCHES,
  BYTES,
  DROP_BAD_ADDRESS,
  DROP_BAD_LENGTH,
  PACKETS,
} from "../../memory/counters.ts";
import type { Batch } from "../../memory/index.ts";
import type { QueueConfig, RxRing, TxRing } from "../format.ts";
import { DESCRIPTORS, INTR, SringHalf } from "./control-words.ts";
import { SRING_DESC, sringContextSize } from "./layout.ts";

export { initialiseSring } from "./control-words.ts";

const DESC_WORDS = SRING_DESC.size >> 2;
const PADDR_LOW = SRING_DESC.paddr.offset >> 2;
const PADDR_HIGH = PADDR_LOW + 1;
const LEN = SRING_DESC.len.offset >> 2;

/** An Ethernet header; anything shorter is no packet. */
const MIN_PACKET = 14;
/** No packet without segmentation is longer; also keeps lengths small integers. */
const MAX_PACKET = 65536;

/** What both directions share: the size of a descriptor, and descriptors that are no packet. */
abstract class SimpleHalf extends SringHalf {
  constructor(config: QueueConfig) {
    super(config, sringContextSize(config.bufs));
  }

  /**
   * A descriptor that is no packet: passed over and counted, once. Completion is in ring order, so that
   * can only happen in front of the batch; behind good ones it ends the batch and is met again.
   */
  protected passOver(slot: number, next: number, length: number): void {
    const bad = length < MIN_PACKET || length > MAX_PACKET ? DROP_BAD_LENGTH : DROP_BAD_ADDRESS;
    this.counters[bad]++;
    this.words.set(slot + LEN, 0);
    this.cons = next;
  }
}

export class SringTx extends SimpleHalf implements TxRing {
  gather(batch: Batch): number {
    const { words, mask } = this;
    this.beginSend();
    let index = this.cons;
    for (let left = this.available(); left > 0 && batch.packets < batch.maxPackets; left--) {
      const slot = DESCRIPTORS + (index & mask) * DESC_WORDS;
      const length = words.get(slot + LEN);
      const low = words.get(slot + PADDR_LOW);
      const high = words.get(slot + PADDR_HIGH);
      index = (index + 1) | 0;
      const sane = length >= MIN_PACKET && length <= MAX_PACKET;
      const address = sane ? this.sendAddress(low, high, length) : 0;
      if (address !== 0) batch.push(address, length, index);
      else if (batch.packets === 0) this.passOver(slot, index, length);
      else break;
    }
    return batch.packets;
  }

  consume(batch: Batch, count: number): boolean {
    return this.complete(batch, count);
  }

  dump(): string {
    return this.line("sring.txq", "intr_at");
  }
}

export class SringRx extends SimpleHalf implements RxRing {
  offer(batch: Batch, max: number): number {
    const { words, mask } = this;
    this.beginReceive();
    const limit = Math.min(batch.maxSegments, max);
    let index = this.cons;
    for (let left = this.available(); left > 0 && batch.segments < limit; left--) {
      const slot = DESCRIPTORS + (index & mask) * DESC_WORDS;
      const length = words.get(slot + LEN);
      const low = words.get(slot + PADDR_LOW);
      const high = words.get(slot + PADDR_HIGH);
      index = (index + 1) | 0;
      const sane = length >= MIN_PACKET && length <= MAX_PACKET;
      const address = sane ? this.receiveAddress(low, high, length, batch.segments) : 0;
      if (address !== 0) batch.addSegment(address, length);
      else if (batch.segments === 0) this.passOver(slot, index, length);
      else break;
    }
    return batch.segments;
  }

  deliver(batch: Batch): boolean {
    const { words, mask, counters } = this;
    this.deliverSplit(batch);
    const count = batch.packets;
    const from = this.cons;
    for (let p = 0; p < count; p++) {
      const slot = DESCRIPTORS + ((from + p) & mask) * DESC_WORDS;
      words.set(slot + LEN, batch.length[p]);
      counters[BYTES] += batch.length[p];
    }
    if (count > 0) {
      this.cons = (from + count) | 0;
      counters[PACKETS] += count;
      counters[BATCHES]++;
    }
    if (this.cons === this.published) return false;
    this.publish();
    return words.load(INTR) !== 0;
  }

  override interruptOverdue(): boolean {
    return this.words.load(INTR) !== 0 && this.takenBack !== this.cons;
  }

  dump(): string {
    return this.line("sring.rxq", "intr");
  }
}

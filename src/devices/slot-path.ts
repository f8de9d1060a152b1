/**
 * The way of packets through a ring of one descriptor per packet, host side, for every layout that
 * has an address and a length in each slot.
 *
 * The guest's words are hostile: each field of a descriptor is loaded once, then validated.
 * Completion is in ring order.
 */
import type { Field, Struct } from "../abi/index.ts";
import { DROP_BAD_ADDRESS, DROP_BAD_LENGTH } from "../memory/counters.ts";
import type { Batch } from "../memory/index.ts";
import { MAX_PACKET, MIN_PACKET } from "./buffers.ts";
import type { RingConfig } from "./define.ts";
import type { RxPath, TxPath } from "./format.ts";
import { type IndexControl, wordOf } from "./index-control.ts";

/** A descriptor with at least these fields; `len` becomes the received length. */
export type SlotLayout = Struct<{ readonly paddr: Field<8>; readonly len: Field<4> }>;

export class SlotPath implements TxPath, RxPath {
  readonly #config: RingConfig;
  readonly #control: IndexControl;
  readonly #slots: number;
  readonly #slotWords: number;
  readonly #paddr: number;
  readonly #len: number;

  /** @param slots byte offset of slot 0 in the private area */
  constructor(config: RingConfig, control: IndexControl, slots: number, layout: SlotLayout) {
    this.#config = config;
    this.#control = control;
    this.#slots = wordOf(slots);
    this.#slotWords = layout.size >> 2;
    this.#paddr = layout.paddr.offset >> 2;
    this.#len = layout.len.offset >> 2;
  }

  #slot(index: number): number {
    return this.#slots + (index & (this.#config.bufs - 1)) * this.#slotWords;
  }

  gather(batch: Batch): number {
    const { words, buffers, bufs } = this.#config;
    const control = this.#control;
    const mask = bufs - 1;
    const slots = this.#slots;
    const slotWords = this.#slotWords;
    const len = this.#len;
    const paddr = this.#paddr;
    buffers.beginSend();
    let index = control.cons;
    for (let left = control.available(); left > 0 && batch.packets < batch.maxPackets; left--) {
      const slot = slots + (index & mask) * slotWords;
      const length = words.get(slot + len);
      const low = words.get(slot + paddr);
      const high = words.get(slot + paddr + 1);
      index = (index + 1) | 0;
      const valid = length >= MIN_PACKET && length <= MAX_PACKET;
      const address = valid ? buffers.toSend(low, high, length) : 0;
      if (address !== 0) batch.push(address, length, index);
      else if (batch.packets > 0) break;
      else this.#skip(slot, index, valid);
    }
    return batch.packets;
  }

  consume(batch: Batch, count: number): boolean {
    if (count > 0) this.#control.cons = batch.cursor[count - 1];
    return this.#control.complete();
  }

  offer(batch: Batch, max: number): number {
    const { words, buffers, bufs } = this.#config;
    const control = this.#control;
    const mask = bufs - 1;
    const slots = this.#slots;
    const slotWords = this.#slotWords;
    const len = this.#len;
    const paddr = this.#paddr;
    buffers.beginReceive();
    const limit = Math.min(batch.maxSegments, max);
    let index = control.cons;
    for (let left = control.available(); left > 0 && batch.segments < limit; left--) {
      const slot = slots + (index & mask) * slotWords;
      const length = words.get(slot + len);
      const low = words.get(slot + paddr);
      const high = words.get(slot + paddr + 1);
      index = (index + 1) | 0;
      const valid = length >= MIN_PACKET && length <= MAX_PACKET;
      const address = valid ? buffers.toReceive(low, high, length, batch.segments) : 0;
      if (address !== 0) batch.addSegment(address, length);
      else if (batch.segments > 0) break;
      else this.#skip(slot, index, valid);
    }
    return batch.segments;
  }

  deliver(batch: Batch): boolean {
    const { words, buffers } = this.#config;
    const control = this.#control;
    buffers.received(batch);
    const from = control.cons;
    for (let p = 0; p < batch.packets; p++) {
      words.set(this.#slot(from + p) + this.#len, batch.length[p]);
    }
    control.cons = (from + batch.packets) | 0;
    return control.complete();
  }

  discard(count: number): void {
    const control = this.#control;
    for (let left = Math.min(count, control.available()); left > 0; left--) {
      this.#config.words.set(this.#slot(control.cons) + this.#len, 0);
      control.cons = (control.cons + 1) | 0;
    }
    control.complete();
  }

  /**
   * Skips an invalid descriptor and counts it, once. Completion is in ring order: it is skipped in
   * front of a batch; behind valid ones it ends the batch, and the next batch begins with it.
   */
  #skip(slot: number, next: number, validLength: boolean): void {
    this.#config.counters[validLength ? DROP_BAD_ADDRESS : DROP_BAD_LENGTH]++;
    this.#config.words.set(slot + this.#len, 0);
    this.#control.cons = next;
  }
}

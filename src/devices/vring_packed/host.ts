/**
 * vring_packed, host half. Trust as in sring's: positions live here, `h.*` in the context is a copy
 * for the guest; a descriptor's words are each loaded once, its flags first.
 *
 * A position counts up, modulo 2^32: slot = position AND (n - 1), and as n is a power of
 * two the wrap bit is a bit of the position, too. Completion is in ring order.
 */
import { PRIVATE_OFFSET } from "../../abi/index.ts";
import { DROP_BAD_ADDRESS, DROP_BAD_LENGTH } from "../../memory/counters.ts";
import type { Batch, ContextWords } from "../../memory/index.ts";
import { MAX_PACKET, MIN_PACKET } from "../buffers.ts";
import { defineNic, type RingConfig } from "../define.ts";
import type { HostRing, RxPath, TxPath } from "../format.ts";
import { wordOf } from "../index-control.ts";
import { joinRx, joinTx } from "../join.ts";
import * as layout from "./layout.ts";
import {
  DESC_AVAIL,
  DESC_USED,
  DESCRIPTORS_OFFSET,
  EVENT_ALWAYS,
  EVENT_AT,
  EVENT_NEVER,
  PACKED,
  PACKED_DESC,
  PACKED_STATE,
  packedPrivateSize,
  stateOffset,
} from "./layout.ts";

/** next_free_id and next_avail_idx; next_used_idx and the guest's wrap bits; avail_used_flags. */
const GUEST = wordOf(PACKED.next_free_id);
const HOST_INDICES = wordOf(PACKED.host_indices);
const HOST_WRAPS = wordOf(PACKED.host_wraps);
const HOST_EVENT = wordOf(PACKED.device_event_flags);
const DRIVER_EVENT = wordOf(PACKED.driver_event);
const DEVICE_EVENT = wordOf(PACKED.device_event);
const DESCRIPTORS = wordOf(DESCRIPTORS_OFFSET);
const DESC_WORDS = PACKED_DESC.size >> 2;
const LEN = PACKED_DESC.len.offset >> 2;
const ID_FLAGS = PACKED_DESC.id_flags.offset >> 2;

function initialisePacked(_direction: "rx" | "tx", words: ContextWords, bufs: number): void {
  words.set(GUEST + 1, 0x0101_0000);
  words.set(GUEST + 2, DESC_AVAIL);
  words.set(HOST_WRAPS, 0x8080_0101 | 0);
  words.set(wordOf(PACKED.state_ofs), stateOffset(bufs));
  words.set(wordOf(PACKED.num_desc), bufs);
  words.set(DRIVER_EVENT, 0x8000 | (EVENT_AT << 16));
  words.set(HOST_EVENT, EVENT_AT);
  // `next` is the low half of its word, and `last` starts as 0.
  const next = wordOf(stateOffset(bufs) + PACKED_STATE.next.offset);
  const stride = PACKED_STATE.size >> 2;
  for (let i = 0; i < bufs - 1; i++) words.set(next + i * stride, i + 1);
  words.store(DEVICE_EVENT, 0x8000 | (EVENT_AT << 16));
}

/** Positions, wrap bits, kicks and interrupts of one ring. */
class PackedControl implements HostRing {
  /** No index can be invalid: each slot's flags say whether it is published. */
  readonly broken = false;
  /** Next to use. */
  position = 0;
  /** Completed up to here. */
  #completed = 0;
  readonly #lapShift: number;
  readonly #rx: boolean;
  readonly #words: ContextWords;
  readonly #bufs: number;

  constructor(direction: "rx" | "tx", { words, bufs }: RingConfig) {
    this.#rx = direction === "rx";
    this.#words = words;
    this.#bufs = bufs;
    this.#lapShift = Math.log2(bufs);
  }

  /** The wrap bit at a position: 1 in the first lap. */
  #wrapAt(position: number): number {
    return ((position >>> this.#lapShift) & 1) ^ 1;
  }

  /** Word of the slot at a position. */
  slotAt(position: number): number {
    return DESCRIPTORS + (position & (this.#bufs - 1)) * DESC_WORDS;
  }

  /** Is the slot at this position published? The load is the acquire before its other words. */
  availableAt(position: number): boolean {
    const flags = this.#words.load(this.slotAt(position) + ID_FLAGS) >>> 16;
    const wanted = this.#wrapAt(position) === 1 ? DESC_AVAIL : DESC_USED;
    return (flags & (DESC_AVAIL | DESC_USED)) === wanted;
  }

  /** From the guest's own index, which is only displayed. */
  fill(): number {
    const slot = (this.#words.get(GUEST) >>> 16) & (this.#bufs - 1);
    const wrap = (this.#words.get(GUEST + 1) >>> 16) & 1;
    const lap = wrap === this.#wrapAt(this.position) ? 0 : this.#bufs;
    return Math.min(Math.max(slot + lap - (this.position & (this.#bufs - 1)), 0), this.#bufs);
  }

  /** Store the kick request, full barrier, check the ring once more. */
  enableKicks(): boolean {
    const { position } = this;
    const at = (position & (this.#bufs - 1)) | (this.#wrapAt(position) << 15);
    this.#words.set(HOST_EVENT, EVENT_AT);
    // `store` is sequentially consistent: it is the full barrier before the load of the flags.
    this.#words.store(DEVICE_EVENT, at | (EVENT_AT << 16));
    if (!this.availableAt(position)) return false;
    this.disableKicks();
    return true;
  }

  disableKicks(): void {
    this.#words.set(HOST_EVENT, EVENT_NEVER);
    this.#words.store(DEVICE_EVENT, EVENT_NEVER << 16);
  }

  save(): number {
    return this.#completed >>> 0;
  }

  restore(position: number): void {
    this.position = position | 0;
    this.#completed = this.position;
    this.#tellPosition();
  }

  /** Reclaiming, the guest moved the host's indices past what it reclaimed. */
  resync(): void {
    const slot = this.#words.load(HOST_INDICES) & (this.#bufs - 1);
    const wrap = this.#words.get(HOST_WRAPS) & 1;
    this.position = slot + (wrap === 1 ? 0 : this.#bufs);
    this.#completed = this.position;
  }

  /** The position is written before the slots are marked, from the last one down. */
  recover(): void {
    this.resync();
    if (this.#isPassed()) {
      // Slot and wrap bits are two words, and only the first was written.
      this.position = (this.position + this.#bufs) | 0;
      this.#completed = this.position;
      this.#tellPosition();
    }
    for (let n = 1; n < this.#bufs; n++) {
      const position = (this.position - n) | 0;
      if (this.availableAt(position)) this.#markUsed(position, true);
    }
  }

  /** Is the slot at the position used, or even published for the next lap? */
  #isPassed(): boolean {
    const { position } = this;
    const flags = this.#words.load(this.slotAt(position) + ID_FLAGS) >>> 16;
    const wrap = this.#wrapAt(position) === 1;
    const used = wrap ? DESC_AVAIL | DESC_USED : 0;
    const next = wrap ? DESC_USED : DESC_AVAIL;
    const found = flags & (DESC_AVAIL | DESC_USED);
    return found === used || found === next;
  }

  #markUsed(position: number, last: boolean): void {
    const words = this.#words;
    const at = this.slotAt(position) + ID_FLAGS;
    const flags = this.#wrapAt(position) === 1 ? DESC_AVAIL | DESC_USED : 0;
    const used = (words.get(at) & 0xffff) | (flags << 16);
    if (last) words.store(at, used);
    else words.set(at, used);
  }

  /** Writes the host's position, as the original does: a guest that reclaims reads it. */
  #tellPosition(): void {
    const slot = this.#completed & (this.#bufs - 1);
    this.#words.set(HOST_INDICES, slot | (slot << 16));
    this.#words.set(HOST_WRAPS, this.#wrapAt(this.#completed) === 1 ? 0x8080_0101 | 0 : 0);
  }

  /**
   * Marks everything up to `position` as used. The first slot goes last: the guest collects in
   * order, so it sees none of the others before; that store is also the full barrier before the
   * load of its notification setting.
   * @returns true if the guest wants an interrupt
   */
  complete(): boolean {
    const completed = this.#completed;
    const count = (this.position - completed) >>> 0;
    if (count === 0) return false;
    this.#completed = this.position;
    this.#tellPosition();
    for (let n = count - 1; n >= 0; n--) this.#markUsed((completed + n) | 0, n === 0);
    return this.#interruptWanted(this.position, count);
  }

  interruptOverdue(): boolean {
    const taken = this.#words.load(GUEST + 1);
    // If all slots are completed and none is reclaimed, only the wrap bits differ.
    const lap = ((taken >>> 24) & 1) === this.#wrapAt(this.#completed) ? 0 : this.#bufs;
    const count = (this.#completed & (this.#bufs - 1)) + lap - (taken & (this.#bufs - 1));
    return count > 0 && this.#interruptWanted(this.#completed, count);
  }

  /**
   * Did the guest enable the notification for one of the `count` slots before `position`? VIRTIO
   * 1.1, section 2.7.10, with the wrap bit taken into the arithmetic.
   */
  #interruptWanted(position: number, count: number): boolean {
    const event = this.#words.load(DRIVER_EVENT);
    const mode = event >>> 16;
    if (mode !== EVENT_AT) return mode === EVENT_ALWAYS;
    const lap = ((event >>> 15) & 1) === this.#wrapAt(position) ? 0 : this.#bufs;
    const at = (event & 0x7fff) - lap;
    return (((position & (this.#bufs - 1)) - at - 1) & 0xffff) < count;
  }

  dump(): string {
    const at = (index: number) => this.#words.load(index) >>> 0;
    const event = (index: number) =>
      `${at(index) >>> 16}:${(at(index) >>> 15) & 1}:${at(index) & 0x7fff}`;
    const wraps = at(GUEST + 1) >>> 16;
    const { position } = this;
    const done = this.#completed;
    const mask = this.#bufs - 1;
    return (
      `vringpacked.${this.#rx ? "rxq" : "txq"} ` +
      `g.avl ${at(GUEST) >>> 16} g.usd ${at(GUEST + 1) & 0xffff} ` +
      `g.wrp ${wraps & 0xff}:${wraps >>> 8} dri ${event(DRIVER_EVENT)} ` +
      `h.avl ${position & mask} h.usd ${done & mask} ` +
      `h.wrp ${this.#wrapAt(position)}:${this.#wrapAt(done)} dev ${event(DEVICE_EVENT)}`
    );
  }
}

/** Skips an invalid descriptor and counts it, once. As in sring, only in front of the batch. */
function skip({ words, counters }: RingConfig, slot: number, problem: number): void {
  counters[problem]++;
  words.set(slot + LEN, 0);
}

class PackedTx implements TxPath {
  readonly #control: PackedControl;
  readonly #config: RingConfig;

  constructor(control: PackedControl, config: RingConfig) {
    this.#control = control;
    this.#config = config;
  }

  gather(batch: Batch): number {
    const { words, buffers, bufs } = this.#config;
    const control = this.#control;
    buffers.beginSend();
    let { position } = control;
    for (let left = bufs; left > 0 && batch.packets < batch.maxPackets; left--) {
      if (!control.availableAt(position)) break;
      const slot = control.slotAt(position);
      const length = words.get(slot + LEN);
      const low = words.get(slot);
      const high = words.get(slot + 1);
      position = (position + 1) | 0;
      const sane = length >= MIN_PACKET && length <= MAX_PACKET;
      const address = sane ? buffers.toSend(low, high, length) : 0;
      if (address !== 0) batch.push(address, length, position);
      else if (batch.packets === 0) {
        skip(this.#config, slot, sane ? DROP_BAD_ADDRESS : DROP_BAD_LENGTH);
        control.position = position;
      } else break;
    }
    return batch.packets;
  }

  consume(batch: Batch, count: number): boolean {
    if (count > 0) this.#control.position = batch.cursor[count - 1];
    return this.#control.complete();
  }
}

class PackedRx implements RxPath {
  readonly #control: PackedControl;
  readonly #config: RingConfig;

  constructor(control: PackedControl, config: RingConfig) {
    this.#control = control;
    this.#config = config;
  }

  offer(batch: Batch, max: number): number {
    const { words, buffers, bufs } = this.#config;
    const control = this.#control;
    buffers.beginReceive();
    const limit = Math.min(batch.maxSegments, max, bufs);
    let { position } = control;
    for (let left = bufs; left > 0 && batch.segments < limit; left--) {
      if (!control.availableAt(position)) break;
      const slot = control.slotAt(position);
      const length = words.get(slot + LEN);
      const low = words.get(slot);
      const high = words.get(slot + 1);
      position = (position + 1) | 0;
      const sane = length >= MIN_PACKET && length <= MAX_PACKET;
      const address = sane ? buffers.toReceive(low, high, length, batch.segments) : 0;
      if (address !== 0) batch.addSegment(address, length);
      else if (batch.segments === 0) {
        skip(this.#config, slot, sane ? DROP_BAD_ADDRESS : DROP_BAD_LENGTH);
        control.position = position;
      } else break;
    }
    return batch.segments;
  }

  deliver(batch: Batch): boolean {
    const { words, buffers } = this.#config;
    const control = this.#control;
    buffers.received(batch);
    const from = control.position;
    for (let p = 0; p < batch.packets; p++) {
      words.set(control.slotAt(from + p) + LEN, batch.length[p]);
    }
    control.position = (from + batch.packets) | 0;
    return control.complete();
  }

  discard(count: number): void {
    const control = this.#control;
    for (let left = count; left > 0 && control.availableAt(control.position); left--) {
      this.#config.words.set(control.slotAt(control.position) + LEN, 0);
      control.position = (control.position + 1) | 0;
    }
    control.complete();
  }
}

/** VirtIO's packed virtqueue: one descriptor per packet, no offloads, event index both ways. */
export const vringPacked = defineNic({
  name: "vring_packed",
  programs: new URL("./guest.ts", import.meta.url),
  layouts: layout,
  constants: ({ bufs }) => ({
    lapShift: Math.log2(bufs),
    states: PRIVATE_OFFSET + stateOffset(bufs),
  }),
  // Its indices have 15 bits.
  maxBufs: 2 ** 15 - 1,
  privateSize: packedPrivateSize,
  initialise: initialisePacked,
  tx: (config) => {
    const control = new PackedControl("tx", config);
    return joinTx(control, new PackedTx(control, config));
  },
  rx: (config) => {
    const control = new PackedControl("rx", config);
    return joinRx(control, new PackedRx(control, config));
  },
});

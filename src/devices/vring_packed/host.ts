/**
 * vring_packed, host half. Trust as in sring's: positions live here, `h.*` in the context is a copy
 * for the guest; a descriptor's words are each loaded once, its flags first.
 *
 * A position counts up for ever, modulo 2^32: slot = position AND (n - 1), and as n is a power of
 * two the wrap bit is a bit of the position, too. Completion is in ring order.
 */
import { PRIVATE_OFFSET } from "../../abi/index.ts";
import {
  BATCHES,
  BYTES,
  DROP_BAD_ADDRESS,
  DROP_BAD_LENGTH,
  PACKETS,
} from "../../memory/counters.ts";
import { type Batch, type ContextWords, contextWords } from "../../memory/index.ts";
import type { QueueConfig, RxRing, TxRing } from "../format.ts";
import { clearPrivate, HostRingBase } from "../host-ring.ts";
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
  packedContextSize,
  stateOffset,
} from "./layout.ts";

/** Indices of 32-bit words in a context. */
const word = (offset: number): number => (PRIVATE_OFFSET + offset) >> 2;
/** next_free_id and next_avail_idx; next_used_idx and the guest's wrap bits; avail_used_flags. */
const GUEST = word(PACKED.next_free_id.offset);
const HOST_INDICES = word(PACKED.host_indices.offset);
const HOST_WRAPS = word(PACKED.host_wraps.offset);
const HOST_EVENT = word(PACKED.device_event_flags.offset);
const DRIVER_EVENT = word(PACKED.driver_event.offset);
const DEVICE_EVENT = word(PACKED.device_event.offset);
const DESCRIPTORS = word(DESCRIPTORS_OFFSET);
const DESC_WORDS = PACKED_DESC.size >> 2;
const LEN = PACKED_DESC.len.offset >> 2;
const ID_FLAGS = PACKED_DESC.id_flags.offset >> 2;

/** An Ethernet header; anything shorter is no packet. */
const MIN_PACKET = 14;
const MAX_PACKET = 65536;

export function initialisePacked(
  direction: "rx" | "tx",
  context: ArrayBuffer | ContextWords,
  bufs: number,
): void {
  const words = contextWords(context);
  clearPrivate(words);
  words.set(GUEST + 1, 0x0101_0000);
  words.set(GUEST + 2, DESC_AVAIL);
  words.set(HOST_WRAPS, 0x8080_0101 | 0);
  words.set(word(PACKED.state_ofs.offset), stateOffset(bufs));
  words.set(word(PACKED.num_desc.offset), bufs);
  words.set(DRIVER_EVENT, 0x8000 | (EVENT_AT << 16));
  words.set(HOST_EVENT, EVENT_AT);
  // `next` is the low half of its word, and `last` starts as 0.
  const next = word(stateOffset(bufs) + PACKED_STATE.next.offset);
  const stride = PACKED_STATE.size >> 2;
  for (let i = 0; i < bufs - 1; i++) words.set(next + i * stride, i + 1);
  words.store(DEVICE_EVENT, 0x8000 | (EVENT_AT << 16));
  void direction;
}

abstract class PackedHalf extends HostRingBase {
  /**
   * This format has no index that could be out of range: flags
   * say of each slot whether it is there.
   */
  readonly broken = false;
  readonly #lapShift: number;
  /** Next to use. */
  protected position = 0;
  /** Completed up to here. */
  protected completed = 0;

  constructor(config: QueueConfig) {
    super(config, packedContextSize(config.bufs));
    this.#lapShift = Math.log2(config.bufs);
  }

  /** The wrap bit at a position: 1 in the first lap. */
  protected wrapAt(position: number): number {
    return ((position >>> this.#lapShift) & 1) ^ 1;
  }

  /** Word of the slot at a position. */
  protected slotAt(position: number): number {
    return DESCRIPTORS + (position & this.mask) * DESC_WORDS;
  }

  /**
   * Has the guest published the slot at this position? The load
   * is the acquire before its other words.
   */
  protected availableAt(position: number): boolean {
    const flags = this.words.load(this.slotAt(position) + ID_FLAGS) >>> 16;
    const wanted = this.wrapAt(position) === 1 ? DESC_AVAIL : DESC_USED;
    return (flags & (DESC_AVAIL | DESC_USED)) === wanted;
  }

  pending(): boolean {
    return this.availableAt(this.position);
  }

  /** From the guest's own index, which only people need. */
  fill(): number {
    const slot = (this.words.get(GUEST) >>> 16) & this.mask;
    const wrap = (this.words.get(GUEST + 1) >>> 16) & 1;
    const lap = wrap === this.wrapAt(this.position) ? 0 : this.bufs;
    return Math.min(Math.max(slot + lap - (this.position & this.mask), 0), this.bufs);
  }

  /**
   * Consumer's half of the suppression pattern: store the kick request, full barrier, look again.
   */
  enableKicks(): boolean {
    const { position } = this;
    const at = (position & this.mask) | (this.wrapAt(position) << 15);
    this.words.set(HOST_EVENT, EVENT_AT);
    // `store` is sequentially consistent: it is the full barrier before the load of the flags.
    this.words.store(DEVICE_EVENT, at | (EVENT_AT << 16));
    if (!this.pending()) return false;
    this.disableKicks();
    return true;
  }

  disableKicks(): void {
    this.words.set(HOST_EVENT, EVENT_NEVER);
    this.words.store(DEVICE_EVENT, EVENT_NEVER << 16);
  }

  save(): number {
    return this.completed >>> 0;
  }

  restore(position: number): void {
    this.position = position | 0;
    this.completed = this.position;
    this.#tellPosition();
  }

  /** Reclaiming, the guest moved our indices past what it took back. */
  resync(): void {
    const slot = this.words.load(HOST_INDICES) & this.mask;
    const wrap = this.words.get(HOST_WRAPS) & 1;
    this.position = slot + (wrap === 1 ? 0 : this.bufs);
    this.completed = this.position;
  }

  /**
   * Our place, in the words that the original keeps it in: for
   * dumps, and for a guest that reclaims.
   */
  #tellPosition(): void {
    const slot = this.completed & this.mask;
    this.words.set(HOST_INDICES, slot | (slot << 16));
    this.words.set(HOST_WRAPS, this.wrapAt(this.completed) === 1 ? 0x8080_0101 | 0 : 0);
  }

  /**
   * Marks everything up to `position` as used. The first slot goes last: the guest collects in
   * order, so it sees none of the others before; that store is also the full barrier before the
   * load of its notification setting.
   * @returns true if the guest wants an interrupt
   */
  protected complete(): boolean {
    const { words, completed } = this;
    const count = (this.position - completed) >>> 0;
    if (count === 0) return false;
    for (let n = count - 1; n >= 0; n--) {
      const position = (completed + n) | 0;
      const at = this.slotAt(position) + ID_FLAGS;
      const flags = this.wrapAt(position) === 1 ? DESC_AVAIL | DESC_USED : 0;
      const used = (words.get(at) & 0xffff) | (flags << 16);
      if (n > 0) words.set(at, used);
      else {
        this.completed = this.position;
        this.#tellPosition();
        words.store(at, used);
      }
    }
    return this.#interruptWanted(this.position, count);
  }

  interruptOverdue(): boolean {
    const taken = this.words.load(GUEST + 1);
    // Where all slots are completed and none is taken back, only the wrap bits differ.
    const lap = ((taken >>> 24) & 1) === this.wrapAt(this.completed) ? 0 : this.bufs;
    const count = (this.completed & this.mask) + lap - (taken & this.mask);
    return count > 0 && this.#interruptWanted(this.completed, count);
  }

  /**
   * Did the guest enable the notification for one of the `count` slots before `position`? VIRTIO
   * 1.1, section 2.7.10, with the wrap bit taken into the arithmetic.
   */
  #interruptWanted(position: number, count: number): boolean {
    const event = this.words.load(DRIVER_EVENT);
    const mode = event >>> 16;
    if (mode !== EVENT_AT) return mode === EVENT_ALWAYS;
    const lap = ((event >>> 15) & 1) === this.wrapAt(position) ? 0 : this.bufs;
    const at = (event & 0x7fff) - lap;
    return (((position & this.mask) - at - 1) & 0xffff) < count;
  }

  protected dumpLine(name: string): string {
    const { words } = this;
    const at = (index: number) => words.load(index) >>> 0;
    const event = (index: number) =>
      `${at(index) >>> 16}:${(at(index) >>> 15) & 1}:${at(index) & 0x7fff}`;
    const wraps = at(GUEST + 1) >>> 16;
    const slot = this.position & this.mask;
    const wrap = this.wrapAt(this.position);
    return (
      `vringpacked.${name} g.avl ${at(GUEST) >>> 16} g.usd ${at(GUEST + 1) & 0xffff} ` +
      `g.wrp ${wraps & 0xff}:${wraps >>> 8} dri ${event(DRIVER_EVENT)} ` +
      `h.avl ${slot} h.usd ${this.completed & this.mask} h.wrp ${wrap}:${this.wrapAt(this.completed)} ` +
      `dev ${event(DEVICE_EVENT)}`
    );
  }

  /**
   * Looks at the slot's buffer.
   * @param segment of the batch that it will be; -1: it is to be sent
   * @returns its length, or 0 if it is none
   */
  protected bufferAt(slot: number, segment: number): number {
    const length = this.words.get(slot + LEN);
    const low = this.words.get(slot);
    const high = this.words.get(slot + 1);
    if (length < MIN_PACKET || length > MAX_PACKET) return this.#noBuffer(DROP_BAD_LENGTH);
    this.address =
      segment < 0
        ? this.sendAddress(low, high, length)
        : this.receiveAddress(low, high, length, segment);
    return this.address === 0 ? this.#noBuffer(DROP_BAD_ADDRESS) : length;
  }

  /** Of `bufferAt`: the address, and the counter of what was wrong. */
  protected address = 0;
  protected problem = 0;

  #noBuffer(problem: number): 0 {
    this.problem = problem;
    return 0;
  }

  /**
   * A descriptor that holds no packet: completed without one, once. As
   * in sring only in front of the batch.
   */
  protected passOver(slot: number, next: number): void {
    this.counters[this.problem]++;
    this.words.set(slot + LEN, 0);
    this.position = next;
  }
}

export class PackedTx extends PackedHalf implements TxRing {
  gather(batch: Batch): number {
    this.beginSend();
    let position = this.position;
    for (let left = this.bufs; left > 0 && batch.packets < batch.maxPackets; left--) {
      if (!this.availableAt(position)) break;
      const slot = this.slotAt(position);
      const length = this.bufferAt(slot, -1);
      position = (position + 1) | 0;
      if (length !== 0) batch.push(this.address, length, position);
      else if (batch.packets === 0) this.passOver(slot, position);
      else break;
    }
    return batch.packets;
  }

  consume(batch: Batch, count: number): boolean {
    const { counters } = this;
    if (count > 0) {
      this.position = batch.cursor[count - 1];
      counters[PACKETS] += count;
      counters[BATCHES]++;
      for (let p = 0; p < count; p++) counters[BYTES] += batch.length[p];
    }
    return this.complete();
  }

  dump(): string {
    return this.dumpLine("txq");
  }
}

export class PackedRx extends PackedHalf implements RxRing {
  offer(batch: Batch, max: number): number {
    this.beginReceive();
    const limit = Math.min(batch.maxSegments, max, this.bufs);
    let position = this.position;
    for (let left = this.bufs; left > 0 && batch.segments < limit; left--) {
      if (!this.availableAt(position)) break;
      const slot = this.slotAt(position);
      const length = this.bufferAt(slot, batch.segments);
      position = (position + 1) | 0;
      if (length !== 0) batch.addSegment(this.address, length);
      else if (batch.segments === 0) this.passOver(slot, position);
      else break;
    }
    return batch.segments;
  }

  deliver(batch: Batch): boolean {
    const { words, counters } = this;
    this.deliverSplit(batch);
    const count = batch.packets;
    for (let p = 0; p < count; p++) {
      words.set(this.slotAt(this.position + p) + LEN, batch.length[p]);
      counters[BYTES] += batch.length[p];
    }
    if (count > 0) {
      this.position = (this.position + count) | 0;
      counters[PACKETS] += count;
      counters[BATCHES]++;
    }
    return this.complete();
  }

  dump(): string {
    return this.dumpLine("rxq");
  }
}

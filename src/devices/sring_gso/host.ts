/**
 * sring_gso, host half. What sring's host half says of trust holds here; in addition a packet is several
 * descriptors, so walks are bounded by 64, and its metadata is checked before anybody acts on it.
 *
 * A descriptor is 8 words: cookie (2), address (2), len | flags << 16, csum_start | csum_offset << 16,
 * hdr_len and gso_size (in either order, see layout.ts), gso_type.
 */
import { MAX_BUFS } from "../../abi/index.ts";
import {
  BATCHES,
  BYTES,
  DROP_BAD_ADDRESS,
  DROP_BAD_CHAIN,
  DROP_BAD_LENGTH,
  PACKETS,
} from "../../memory/counters.ts";
import { type Batch, MAX_GSO_PACKET, NEEDS_CSUM } from "../../memory/index.ts";
import { metadataProblem, transmitOffloads } from "../../memory/offloads.ts";
import type { QueueConfig, RxRing, TxRing } from "../format.ts";
import { DESCRIPTORS, INTR, KICK, SringHalf } from "../sring/control-words.ts";
import { DESC_EOP, DESC_NEEDS_CSUM, GSO_TX_DESC, sringGsoContextSize } from "./layout.ts";

const DESC_WORDS = GSO_TX_DESC.size >> 2;
const PADDR_LOW = GSO_TX_DESC.paddr.offset >> 2;
const PADDR_HIGH = PADDR_LOW + 1;
const LEN_FLAGS = GSO_TX_DESC.len.offset >> 2;
const CSUM = GSO_TX_DESC.csum_start.offset >> 2;
const SIZES = GSO_TX_DESC.hdr_len.offset >> 2;
const TYPE = GSO_TX_DESC.gso_type.offset >> 2;

/** An Ethernet header; anything shorter is no packet. */
const MIN_PACKET = 14;

/** What a buffer of no bytes has for an address: why it is one. */
const NO_ADDRESS = 0;
const NO_LENGTH = 1;

abstract class GsoHalf extends SringHalf {
  /** The guest's `prod` when what it had published was not enough to go on with. */
  #stalledAt = -1;
  #stalled = false;

  constructor(config: QueueConfig) {
    super(config, sringGsoContextSize(config.bufs));
  }

  /** What is there is not enough: until the guest publishes more, there is no work. */
  protected stall(): void {
    this.#stalled = true;
    this.#stalledAt = this.prod;
  }

  override pending(): boolean {
    return this.available() > 0 && !(this.#stalled && this.prod === this.#stalledAt);
  }

  override enableKicks(): boolean {
    this.words.store(KICK, 1);
    if (!this.pending()) return false;
    this.words.store(KICK, 0);
    return true;
  }
}

export class SringGsoTx extends GsoHalf implements TxRing {
  readonly #allowed: number;
  /** Of the packet looked at last: descriptors that it takes, and the counter of its drop or -1. */
  #taken = 0;
  #problem = -1;

  constructor(config: QueueConfig) {
    super(config);
    this.#allowed = transmitOffloads(config.features);
  }

  gather(batch: Batch): number {
    batch.metadata = true;
    this.beginSend();
    let index = this.cons;
    for (let left = this.available(); left > 0 && batch.packets < batch.maxPackets; ) {
      if (!this.#gatherPacket(batch, index, left)) break;
      const next = (index + this.#taken) | 0;
      if (this.#problem >= 0) {
        // Completion is in ring order: a bad packet goes when it is the first; else it is met again.
        if (batch.packets > 0) break;
        this.counters[this.#problem]++;
        this.cons = next;
      }
      index = next;
      left -= this.#taken;
    }
    return batch.packets;
  }

  consume(batch: Batch, count: number): boolean {
    return this.complete(batch, count);
  }

  dump(): string {
    return this.line("sring.txq", "intr_at");
  }

  /** @returns false where there is no whole packet, or no room for it in this batch */
  #gatherPacket(batch: Batch, index: number, left: number): boolean {
    const { words, mask } = this;
    const most = Math.min(left, MAX_BUFS);
    let length = 0;
    let bad = -1;
    for (let n = 0; n < most; n++) {
      const slot = DESCRIPTORS + ((index + n) & mask) * DESC_WORDS;
      const lenFlags = words.get(slot + LEN_FLAGS);
      const size = lenFlags & 0xffff;
      if (size > 0 && bad < 0) {
        if (batch.segments === batch.maxSegments) return this.#giveUp(batch);
        const low = words.get(slot + PADDR_LOW);
        const address = this.sendAddress(low, words.get(slot + PADDR_HIGH), size);
        if (address === 0) bad = DROP_BAD_ADDRESS;
        else batch.addSegment(address, size);
        length += size;
      }
      if (((lenFlags >>> 16) & DESC_EOP) === 0) continue;
      this.#taken = n + 1;
      return this.#endPacket(batch, slot, lenFlags >>> 16, length, bad, index);
    }
    // Half a packet, whose other half a decent guest has published at the same time: or none at all.
    if (left < MAX_BUFS && left < this.bufs) {
      this.stall();
      return this.#giveUp(batch);
    }
    batch.abandonPacket();
    this.#taken = most;
    this.#problem = DROP_BAD_CHAIN;
    return true;
  }

  #giveUp(batch: Batch): false {
    batch.abandonPacket();
    return false;
  }

  #endPacket(
    batch: Batch,
    slot: number,
    flags: number,
    length: number,
    bad: number,
    index: number,
  ): true {
    this.#problem = bad;
    const sane = length >= MIN_PACKET && length <= MAX_GSO_PACKET;
    if (bad < 0 && !sane) this.#problem = DROP_BAD_LENGTH;
    if (this.#problem >= 0) {
      batch.abandonPacket();
      return true;
    }
    const { words } = this;
    const p = batch.endPacket(length, (index + this.#taken) | 0);
    const csum = words.get(slot + CSUM);
    const sizes = words.get(slot + SIZES);
    batch.flags[p] = flags & DESC_NEEDS_CSUM ? NEEDS_CSUM : 0;
    // 16 bits in the ring, 8 in virtio-net: what does not fit is none of them.
    const type = words.get(slot + TYPE) & 0xffff;
    batch.gsoType[p] = type > 0xff ? 0xff : type;
    batch.csumStart[p] = csum;
    batch.csumOffset[p] = csum >>> 16;
    batch.hdrLen[p] = sizes;
    batch.gsoSize[p] = sizes >>> 16;
    this.#problem = metadataProblem(batch, p, this.#allowed);
    if (this.#problem >= 0) batch.undoPacket();
    return true;
  }
}

export class SringGsoRx extends GsoHalf implements RxRing {
  readonly #maxPacket: number;

  constructor(config: QueueConfig) {
    super(config);
    this.#maxPacket = config.maxPacket;
  }

  /**
   * Lays out enough buffers for the longest packet. Where a ring is so small that the guest may never
   * publish that many, half of it has to do, for packets that fit.
   */
  offer(batch: Batch, max: number): number {
    const { words, mask } = this;
    batch.metadata = true;
    this.beginReceive();
    let bytes = 0;
    // Bytes of the segments that are left where all packets but the last one took one each.
    let tail = 0;
    let index = this.cons;
    for (let left = this.available(); left > 0 && tail < this.#maxPacket; left--) {
      if (batch.segments === batch.maxSegments) break;
      const slot = DESCRIPTORS + (index & mask) * DESC_WORDS;
      const size = words.get(slot + LEN_FLAGS) & 0xffff;
      const low = words.get(slot + PADDR_LOW);
      const high = words.get(slot + PADDR_HIGH);
      const address = size === 0 ? 0 : this.receiveAddress(low, high, size, batch.segments);
      index = (index + 1) | 0;
      if (address !== 0) {
        batch.addSegment(address, size);
        bytes += size;
        if (batch.segments >= max) tail += size;
      } else if (batch.segments === 0) {
        this.#passOver(slot, size);
        this.cons = index;
      } else {
        // Behind good ones it goes along with their packet, as a buffer of no bytes.
        batch.addSegment(size === 0 ? NO_LENGTH : NO_ADDRESS, 0);
      }
    }
    if (bytes === 0 || (bytes < this.#maxPacket && batch.segments * 2 < this.bufs)) {
      this.stall();
      batch.segments = 0;
      return 0;
    }
    batch.receiveInto(this.#maxPacket, Math.min(bytes, this.#maxPacket));
    return batch.segments;
  }

  deliver(batch: Batch): boolean {
    const { counters } = this;
    this.deliverSplit(batch);
    for (let p = 0; p < batch.packets; p++) {
      this.#deliverPacket(batch, p);
      counters[BYTES] += batch.length[p];
    }
    if (batch.packets > 0) {
      this.cons = (this.cons + batch.used) | 0;
      counters[PACKETS] += batch.packets;
      counters[BATCHES]++;
    }
    if (this.cons === this.published) return false;
    this.publish();
    return this.words.load(INTR) !== 0;
  }

  override interruptOverdue(): boolean {
    return this.words.load(INTR) !== 0 && this.takenBack !== this.cons;
  }

  dump(): string {
    return this.line("sring.rxq", "intr");
  }

  /** Whether it was the address or the length that was wrong is for the counters only. */
  #passOver(slot: number, size: number): void {
    this.counters[size === 0 ? DROP_BAD_LENGTH : DROP_BAD_ADDRESS]++;
    this.words.set(slot + LEN_FLAGS, 0);
    this.words.set(slot + TYPE, 0);
  }

  #deliverPacket(batch: Batch, p: number): void {
    const { words, mask } = this;
    const last = batch.first[p + 1] - 1;
    let rest = batch.length[p];
    let slot = 0;
    for (let s = batch.first[p]; s <= last; s++) {
      slot = DESCRIPTORS + ((this.cons + s) & mask) * DESC_WORDS;
      const part = Math.min(batch.size[s], rest);
      rest -= part;
      if (batch.size[s] === 0) {
        this.counters[batch.address[s] === NO_LENGTH ? DROP_BAD_LENGTH : DROP_BAD_ADDRESS]++;
      }
      words.set(slot + LEN_FLAGS, part | (s === last ? this.#lastFlags(batch, p) << 16 : 0));
    }
    words.set(slot + CSUM, batch.csumStart[p] | (batch.csumOffset[p] << 16));
    words.set(slot + SIZES, batch.gsoSize[p] | (batch.hdrLen[p] << 16));
    words.set(slot + TYPE, batch.gsoType[p]);
  }

  #lastFlags(batch: Batch, p: number): number {
    return DESC_EOP | (batch.flags[p] & NEEDS_CSUM ? DESC_NEEDS_CSUM : 0);
  }
}

/**
 * sring_gso, host half. What sring's host half says of trust holds here; in addition a packet is
 * several descriptors, so walks are bounded by 64, and its metadata is checked before it is used.
 *
 * A descriptor is 8 words: cookie (2), address (2), len | flags << 16,
 * csum_start | csum_offset << 16, hdr_len and gso_size (in either order, see layout.ts), gso_type.
 */
import { MAX_BUFS } from "../../abi/index.ts";
import { DROP_BAD_ADDRESS, DROP_BAD_CHAIN, DROP_BAD_LENGTH } from "../../memory/counters.ts";
import {
  type Batch,
  HASH_NONE,
  HASH_PORTS,
  MAX_GSO_PACKET,
  NEEDS_CSUM,
} from "../../memory/index.ts";
import { metadataProblem, transmitOffloads } from "../../memory/offloads.ts";
import { MIN_PACKET } from "../buffers.ts";
import { defineNic, type RingConfig } from "../define.ts";
import type { RxPath, TxPath } from "../format.ts";
import type { IndexControl } from "../index-control.ts";
import { joinRx, joinTx } from "../join.ts";
import { DESCRIPTORS, initialiseSring, sringControl } from "../sring/control-words.ts";
import * as sring from "../sring/layout.ts";
import * as layout from "./layout.ts";
import { DESC_EOP, DESC_HASH, DESC_HASH_PORTS, DESC_NEEDS_CSUM, GSO_TX_DESC } from "./layout.ts";

const DESC_WORDS = GSO_TX_DESC.size >> 2;
const PADDR_LOW = GSO_TX_DESC.paddr.offset >> 2;
const PADDR_HIGH = PADDR_LOW + 1;
const LEN_FLAGS = GSO_TX_DESC.len.offset >> 2;
const CSUM = GSO_TX_DESC.csum_start.offset >> 2;
const SIZES = GSO_TX_DESC.hdr_len.offset >> 2;
const TYPE = GSO_TX_DESC.gso_type.offset >> 2;

const HIGH_HALF = 0xffff_0000;

/** Address of a segment of 0 bytes: why it has none. */
const NO_ADDRESS = 0;
const NO_LENGTH = 1;

class SringGsoTx implements TxPath {
  readonly #control: IndexControl;
  readonly #config: RingConfig;
  readonly #allowed: number;
  /** Of the packet walked last: descriptors that it takes, and the counter of its drop or -1. */
  #taken = 0;
  #problem = -1;

  constructor(control: IndexControl, config: RingConfig) {
    this.#control = control;
    this.#config = config;
    this.#allowed = transmitOffloads(config.features);
  }

  gather(batch: Batch): number {
    const control = this.#control;
    batch.metadata = true;
    this.#config.buffers.beginSend();
    let index = control.cons;
    for (let left = control.available(); left > 0 && batch.packets < batch.maxPackets; ) {
      if (!this.#gatherPacket(batch, index, left)) break;
      const next = (index + this.#taken) | 0;
      if (this.#problem >= 0) {
        // Completion is in ring order: an invalid packet is skipped once it is the first.
        if (batch.packets > 0) break;
        this.#config.counters[this.#problem]++;
        control.cons = next;
      }
      index = next;
      left -= this.#taken;
    }
    return batch.packets;
  }

  consume(batch: Batch, count: number): boolean {
    if (count > 0) this.#control.cons = batch.cursor[count - 1];
    return this.#control.complete();
  }

  /** @returns false if there is no whole packet, or no room for it in this batch */
  #gatherPacket(batch: Batch, index: number, left: number): boolean {
    const { words, buffers, bufs } = this.#config;
    const mask = bufs - 1;
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
        const address = buffers.toSend(low, words.get(slot + PADDR_HIGH), size);
        if (address === 0) bad = DROP_BAD_ADDRESS;
        else batch.addSegment(address, size);
        length += size;
      }
      if (((lenFlags >>> 16) & DESC_EOP) === 0) continue;
      this.#taken = n + 1;
      return this.#endPacket(batch, slot, lenFlags >>> 16, length, bad, index);
    }
    // No end of packet yet: wait for the rest of it.
    if (left < MAX_BUFS && left < bufs) {
      this.#control.stall();
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
    const { words } = this.#config;
    const p = batch.endPacket(length, (index + this.#taken) | 0);
    const csum = words.get(slot + CSUM);
    const sizes = words.get(slot + SIZES);
    batch.flags[p] = flags & DESC_NEEDS_CSUM ? NEEDS_CSUM : 0;
    // 16 bits in the ring, 8 in virtio-net: a value that does not fit is an unknown type.
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

class SringGsoRx implements RxPath {
  readonly #control: IndexControl;
  readonly #config: RingConfig;

  constructor(control: IndexControl, config: RingConfig) {
    this.#control = control;
    this.#config = config;
  }

  /**
   * Offers enough buffers for the longest packet. If the ring is so small that the guest may never
   * publish that many, half of it is enough, for packets that fit.
   */
  offer(batch: Batch, max: number): number {
    const { words, buffers, bufs, maxPacket } = this.#config;
    const control = this.#control;
    const mask = bufs - 1;
    batch.metadata = true;
    buffers.beginReceive();
    let bytes = 0;
    // Bytes of the segments that are left if all packets but the last one take one each.
    let tail = 0;
    let index = control.cons;
    for (let left = control.available(); left > 0 && tail < maxPacket; left--) {
      if (batch.segments === batch.maxSegments) break;
      const slot = DESCRIPTORS + (index & mask) * DESC_WORDS;
      const size = words.get(slot + LEN_FLAGS) & 0xffff;
      const low = words.get(slot + PADDR_LOW);
      const high = words.get(slot + PADDR_HIGH);
      const address = size === 0 ? 0 : buffers.toReceive(low, high, size, batch.segments);
      index = (index + 1) | 0;
      if (address !== 0) {
        batch.addSegment(address, size);
        bytes += size;
        if (batch.segments >= max) tail += size;
      } else if (batch.segments === 0) {
        this.#skip(slot, size);
        control.cons = index;
      } else {
        // Behind valid ones it is part of their packet, as a segment of 0 bytes.
        batch.addSegment(size === 0 ? NO_LENGTH : NO_ADDRESS, 0);
      }
    }
    if (bytes === 0 || (bytes < maxPacket && batch.segments * 2 < bufs)) {
      control.stall();
      batch.segments = 0;
      return 0;
    }
    batch.receiveInto(maxPacket, Math.min(bytes, maxPacket));
    return batch.segments;
  }

  deliver(batch: Batch): boolean {
    const control = this.#control;
    this.#config.buffers.received(batch);
    for (let p = 0; p < batch.packets; p++) this.#deliverPacket(batch, p);
    if (batch.packets > 0) control.cons = (control.cons + batch.used) | 0;
    return control.complete();
  }

  #skip(slot: number, size: number): void {
    const { words, counters } = this.#config;
    counters[size === 0 ? DROP_BAD_LENGTH : DROP_BAD_ADDRESS]++;
    words.set(slot + LEN_FLAGS, 0);
    words.set(slot + TYPE, 0);
  }

  #deliverPacket(batch: Batch, p: number): void {
    const { words, counters, bufs } = this.#config;
    const from = this.#control.cons;
    const last = batch.first[p + 1] - 1;
    let rest = batch.length[p];
    let slot = 0;
    for (let s = batch.first[p]; s <= last; s++) {
      slot = DESCRIPTORS + ((from + s) & (bufs - 1)) * DESC_WORDS;
      const part = Math.min(batch.size[s], rest);
      rest -= part;
      if (batch.size[s] === 0) {
        counters[batch.address[s] === NO_LENGTH ? DROP_BAD_LENGTH : DROP_BAD_ADDRESS]++;
      }
      words.set(slot + LEN_FLAGS, part | (s === last ? this.#lastFlags(batch, p) << 16 : 0));
    }
    words.set(slot + CSUM, batch.csumStart[p] | (batch.csumOffset[p] << 16));
    const hashed = batch.hashed && batch.hashKind[p] !== HASH_NONE;
    // The length of the headers is a hint, which the guest's driver does not use.
    const low = hashed ? batch.hash[p] : batch.hdrLen[p];
    words.set(slot + SIZES, batch.gsoSize[p] | (low << 16));
    words.set(slot + TYPE, batch.gsoType[p] | (hashed ? batch.hash[p] & HIGH_HALF : 0));
  }

  #lastFlags(batch: Batch, p: number): number {
    const csum = batch.flags[p] & NEEDS_CSUM ? DESC_NEEDS_CSUM : 0;
    if (!batch.hashed || batch.hashKind[p] === HASH_NONE) return DESC_EOP | csum;
    return DESC_EOP | csum | DESC_HASH | (batch.hashKind[p] === HASH_PORTS ? DESC_HASH_PORTS : 0);
  }
}

/** The ring with offloads: several descriptors per packet, checksums and segmentation offloaded. */
export const sringGso = defineNic({
  name: "sring_gso",
  /** All offloads; packets stay in order. */
  features: 0x1ff,
  programs: new URL("./guest.ts", import.meta.url),
  layouts: { ...sring, ...layout },
  privateSize: (bufs) => sring.SRING.size + GSO_TX_DESC.size * bufs,
  initialise: initialiseSring,
  tx: (config) => {
    const control = sringControl("tx", config);
    return joinTx(control, new SringGsoTx(control, config));
  },
  rx: (config) => {
    const control = sringControl("rx", config);
    return joinRx(control, new SringGsoRx(control, config));
  },
});

/**
 * A batch of packets between ring and port: a table of packets, each a run of memory segments, with
 * its offload metadata. Made once and reused; nothing is allocated per packet.
 *
 *     packet p = segments first[p] .. first[p + 1] - 1
 *
 * Sending, the ring adds packets (`push`, or `addSegment` and `endPacket`) and the port reads them.
 * Receiving, the ring adds free segments (`addSegment`); a packet takes one of them or, after
 * `receiveInto`, as many as it needs. The port asks how long the next packet may be (`nextBuffer`),
 * writes it from the first unused segment on, and ends it (`endReceived`).
 */
import { VNET_HDR } from "../abi/context.ts";
import { type FlowHash, HASH_NONE } from "./flow-hash.ts";
import { HEAD_BYTES, hostBytes } from "./host-bytes.ts";
import { GSO_NONE, NEEDS_CSUM, type PacketMetadata } from "./metadata.ts";
import type { ReceiveFilter } from "./receive-filter.ts";

/** Result of `endReceived` instead of a packet's number. */
export const FILTERED_OUT = -1;

export class Batch {
  readonly maxPackets: number;
  readonly maxSegments: number;
  /** Packets in the batch. */
  packets = 0;
  /** Segments in the batch. */
  segments = 0;
  /** Receiving: segments that packets have taken. */
  used = 0;
  /** Receiving: a packet may span several segments (`receiveInto`); otherwise it takes one. */
  spanning = false;
  /** Receiving into spans: the longest packet. */
  maxPacket = 0;
  /** Receiving into spans: free bytes without which no packet is asked for. */
  #least = 0;
  /** True if packets carry metadata; otherwise its arrays are undefined. */
  metadata = false;
  /** Receiving: which packets `endReceived` takes; null: all. `clear` leaves it. */
  filter: ReceiveFilter | null = null;
  /** Receiving: `endReceived` hashes the packet; null: it does not. `clear` leaves it. */
  flowHash: FlowHash | null = null;
  /** Receiving: packets have `hash` and `hashKind`. `clear` leaves it. */
  hashed = false;
  /** Receiving: packets that the filter left out. */
  filtered = 0;
  /** Receiving: limits hold nothing back, and count it. `clear` leaves it. */
  urgent = false;
  /** Receiving: see `limit`. */
  #mostPackets: number;
  #bytesLeft = Number.POSITIVE_INFINITY;
  /** First segment of each packet, and one entry more. */
  readonly first: Int32Array;
  /** Bytes of each packet. */
  readonly length: Int32Array;
  /**
   * Sending: the device's ring position after each packet; consuming packet p moves the ring here.
   */
  readonly cursor: Int32Array;
  /** Host virtual address of each segment: exact as a number, below 2^47. */
  readonly address: Float64Array;
  /** Bytes of each segment. */
  readonly size: Int32Array;

  /* The fields of virtio_net_hdr, one entry a packet (VIRTIO 1.1, section 5.1.6) */
  readonly flags: Uint8Array;
  readonly gsoType: Uint8Array;
  /** Bytes of all headers up to the payload: a hint. */
  readonly hdrLen: Uint16Array;
  /** Bytes of payload in each segment. */
  readonly gsoSize: Uint16Array;
  readonly csumStart: Uint16Array;
  /** From `csumStart`. */
  readonly csumOffset: Uint16Array;

  /** Hash of the packet's flow, signed. */
  readonly hash: Int32Array;
  /** HASH_NONE, HASH_ADDRESSES or HASH_PORTS. */
  readonly hashKind: Uint8Array;

  constructor(maxPackets = 128, maxSegments = maxPackets) {
    this.maxPackets = maxPackets;
    this.#mostPackets = maxPackets;
    this.maxSegments = maxSegments;
    this.first = new Int32Array(maxPackets + 1);
    this.length = new Int32Array(maxPackets);
    this.cursor = new Int32Array(maxPackets);
    this.address = new Float64Array(maxSegments);
    this.size = new Int32Array(maxSegments);
    this.flags = new Uint8Array(maxPackets);
    this.gsoType = new Uint8Array(maxPackets);
    this.hdrLen = new Uint16Array(maxPackets);
    this.gsoSize = new Uint16Array(maxPackets);
    this.csumStart = new Uint16Array(maxPackets);
    this.csumOffset = new Uint16Array(maxPackets);
    this.hash = new Int32Array(maxPackets);
    this.hashKind = new Uint8Array(maxPackets);
  }

  clear(): void {
    this.packets = 0;
    this.segments = 0;
    this.used = 0;
    this.spanning = false;
    this.maxPacket = 0;
    this.#least = 0;
    this.metadata = false;
    this.filtered = 0;
  }

  /** Adds a packet of one segment. The caller has checked that there is room. */
  push(address: number, size: number, cursor: number): void {
    const p = this.packets;
    const s = this.segments;
    this.address[s] = address;
    this.size[s] = size;
    this.length[p] = size;
    this.cursor[p] = cursor;
    this.segments = s + 1;
    this.first[p + 1] = s + 1;
    this.packets = p + 1;
  }

  /**
   * Adds a segment: of the packet that `endPacket` will end, or a free one. The caller checked for
   * room.
   */
  addSegment(address: number, size: number): void {
    const s = this.segments;
    this.address[s] = address;
    this.size[s] = size;
    this.segments = s + 1;
  }

  /** Ends a packet made of the segments added since the last one. @returns its number */
  endPacket(length: number, cursor: number): number {
    const p = this.packets;
    this.length[p] = length;
    this.cursor[p] = cursor;
    this.first[p + 1] = this.segments;
    this.packets = p + 1;
    return p;
  }

  /** Forgets the segments added since the last packet. */
  abandonPacket(): void {
    this.segments = this.first[this.packets];
  }

  /** Takes the last packet away again. */
  undoPacket(): void {
    this.packets--;
    this.segments = this.first[this.packets];
  }

  /**
   * Receiving: packets span as many segments as they need.
   * @param maxPacket bytes of the longest packet
   * @param least bytes that must be free before another packet is asked for, 1 to `maxPacket`
   */
  receiveInto(maxPacket: number, least: number): void {
    this.spanning = true;
    this.maxPacket = maxPacket;
    this.#least = least;
  }

  /**
   * Receiving: takes so many more packets at most, and none after so many bytes: the last one may
   * exceed them. `clear` leaves the limits.
   */
  limit(packets: number, bytes: number): void {
    this.#mostPackets = Math.min(this.maxPackets, this.packets + packets);
    this.#bytesLeft = bytes;
  }

  /** Receiving: bytes that the next packet may have; 0 if the batch takes no more packets. */
  nextBuffer(): number {
    if (this.packets >= this.#mostPackets || this.used >= this.segments) return 0;
    if (this.#bytesLeft <= 0) return 0;
    if (!this.spanning) return this.size[this.used];
    const { maxPacket } = this;
    let free = 0;
    for (let s = this.used; s < this.segments; s++) {
      free += this.size[s];
      if (free >= maxPacket) return maxPacket;
    }
    return free >= this.#least ? free : 0;
  }

  /**
   * Receiving: ends a packet of `length` bytes, which is in the free segments from the first unused
   * one on. If the batch has metadata, the port sets it for the returned packet.
   * @returns the packet's number; FILTERED_OUT if the filter leaves it out: its segments are free
   */
  endReceived(length: number): number {
    const p = this.packets;
    let s = this.used;
    if (this.filter !== null && !this.filter.takes(this.address[s], this.size[s], length)) {
      this.filtered++;
      return FILTERED_OUT;
    }
    if (this.flowHash !== null) this.#hashPacket(this.flowHash, p, s, length);
    if (!this.spanning) s++;
    else for (let left = length; left > 0 && s < this.segments; s++) left -= this.size[s];
    this.length[p] = length;
    this.#bytesLeft -= length;
    this.first[p + 1] = s;
    this.used = s;
    this.packets = p + 1;
    return p;
  }

  #hashPacket(flowHash: FlowHash, p: number, s: number, length: number): void {
    const head = Math.min(this.size[s], length, HEAD_BYTES);
    this.hash[p] = 0;
    this.hashKind[p] = HASH_NONE;
    if (head === 0) return;
    hostBytes.find(this.address[s], head);
    this.hash[p] = flowHash.of(hostBytes.bytes, hostBytes.at, head);
    this.hashKind[p] = flowHash.kind;
  }

  /** Copies the metadata of packet q of another batch to packet p. */
  copyMetadata(p: number, from: Batch, q: number): void {
    this.flags[p] = from.flags[q];
    this.gsoType[p] = from.gsoType[q];
    this.hdrLen[p] = from.hdrLen[q];
    this.gsoSize[p] = from.gsoSize[q];
    this.csumStart[p] = from.csumStart[q];
    this.csumOffset[p] = from.csumOffset[q];
    this.hash[p] = from.hash[q];
    this.hashKind[p] = from.hashKind[q];
  }

  /** Packet p has no metadata: nothing is left to the receiver. */
  clearMetadata(p: number): void {
    this.flags[p] = 0;
    this.gsoType[p] = GSO_NONE;
    this.hdrLen[p] = 0;
    this.gsoSize[p] = 0;
    this.csumStart[p] = 0;
    this.csumOffset[p] = 0;
  }

  setMetadata(p: number, metadata: PacketMetadata): void {
    this.flags[p] = metadata.flags;
    this.gsoType[p] = metadata.gsoType;
    this.hdrLen[p] = metadata.hdrLen;
    this.gsoSize[p] = metadata.gsoSize;
    this.csumStart[p] = metadata.csumStart;
    this.csumOffset[p] = metadata.csumOffset;
  }

  metadataOf(p: number): PacketMetadata {
    return {
      flags: this.flags[p],
      gsoType: this.gsoType[p],
      hdrLen: this.hdrLen[p],
      gsoSize: this.gsoSize[p],
      csumStart: this.csumStart[p],
      csumOffset: this.csumOffset[p],
    };
  }

  /** Writes the metadata of packet p as a virtio_net_hdr: its first words of 16 bits. */
  writeHeader(p: number, header: Uint16Array): void {
    header[FLAGS_AND_TYPE] = this.flags[p] | (this.gsoType[p] << 8);
    header[HDR_LEN] = this.hdrLen[p];
    header[GSO_SIZE] = this.gsoSize[p];
    header[CSUM_START] = this.csumStart[p];
    header[CSUM_OFFSET] = this.csumOffset[p];
  }

  /**
   * Sets the metadata of packet p from a virtio_net_hdr. Of the flags, NEEDS_CSUM alone is kept:
   * rings have no room for the others, which are hints.
   */
  readHeader(p: number, header: Uint16Array): void {
    this.flags[p] = headerFlags(header);
    this.gsoType[p] = headerGsoType(header);
    this.hdrLen[p] = header[HDR_LEN];
    this.gsoSize[p] = header[GSO_SIZE];
    this.csumStart[p] = header[CSUM_START];
    this.csumOffset[p] = header[CSUM_OFFSET];
  }
}

/* virtio_net_hdr in words of 16 bits; flags and type share the first one */
const FLAGS_AND_TYPE = VNET_HDR.flags.offset >> 1;
const HDR_LEN = VNET_HDR.hdr_len.offset >> 1;
const GSO_SIZE = VNET_HDR.gso_size.offset >> 1;
const CSUM_START = VNET_HDR.csum_start.offset >> 1;
const CSUM_OFFSET = VNET_HDR.csum_offset.offset >> 1;

/** The flags of a virtio_net_hdr that count here. */
export function headerFlags(header: Uint16Array): number {
  return header[FLAGS_AND_TYPE] & NEEDS_CSUM;
}

export function headerGsoType(header: Uint16Array): number {
  return header[FLAGS_AND_TYPE] >> 8;
}

/**
 * Offloads in software: stores the checksum that a guest left to hardware, and segments large TCP
 * and UDP packets.
 */
import { type Batch, GSO_ECN, GSO_TCP_V4, GSO_TCP_V6, GSO_UDP_L4 } from "../memory/index.ts";

const ETHERNET_TYPE = 12;
const IPV4 = 0x0800;
const IPV6 = 0x86dd;
const IPV4_HEADER = 20;
const IPV6_HEADER = 40;
const TCP_HEADER = 20;
const UDP_HEADER = 8;
const PROTO_TCP = 6;
const PROTO_UDP = 17;
const TCP_CHECKSUM = 16;
const UDP_CHECKSUM = 6;
const TCP_FLAGS = 13;
const CWR = 0x80;
const FIN_PSH = 0x09;
/** Longest header: it bounds how much longer the segments are than the packet. */
const MAX_HEADER = 512;

/** @returns the sum of the 16-bit words from `from` up to `to`, not folded */
function sum(bytes: Uint8Array, from: number, to: number): number {
  let total = 0;
  let at = from;
  for (; at + 1 < to; at += 2) total += (bytes[at] << 8) | bytes[at + 1];
  return at < to ? total + (bytes[at] << 8) : total;
}

/** @returns the checksum of a sum (RFC 1071) */
function checksum(total: number): number {
  let folded = total;
  while (folded > 0xffff) folded = (folded % 0x10000) + Math.floor(folded / 0x10000);
  return ~folded & 0xffff;
}

function put16(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value >>> 8;
  bytes[at + 1] = value;
}

const get16 = (bytes: Uint8Array, at: number): number => (bytes[at] << 8) | bytes[at + 1];
const get32 = (bytes: Uint8Array, at: number): number =>
  ((get16(bytes, at) << 16) | get16(bytes, at + 2)) >>> 0;

/**
 * Stores the checksum that the packet at `frame` needs: its field holds the pseudo header's sum.
 */
export function finishChecksum(
  bytes: Uint8Array,
  frame: number,
  length: number,
  start: number,
  offset: number,
): void {
  if (start + offset + 2 > length) return;
  // In UDP, 0 means no checksum (RFC 768); in TCP, both zeros are equal.
  const value = checksum(sum(bytes, frame + start, frame + length)) || 0xffff;
  put16(bytes, frame + start + offset, value);
}

/** Segments one packet at a time: `begin`, then `write` for each segment. */
export class Segmenter {
  #frame: Uint8Array = new Uint8Array(0);
  #length = 0;
  /** Offsets of the IP header, of TCP or UDP, and of the payload. */
  #network = 0;
  #transport = 0;
  header = 0;
  #size = 0;
  #ipv4 = false;
  #tcp = false;
  count = 0;

  /**
   * @param frame packet p of the batch, of `length` bytes
   * @returns number of segments; 0 if the packet cannot be segmented
   */
  begin(frame: Uint8Array, length: number, batch: Batch, p: number): number {
    const type = batch.gsoType[p] & ~GSO_ECN;
    this.#frame = frame;
    this.#length = length;
    this.#transport = batch.csumStart[p];
    this.#size = batch.gsoSize[p];
    this.#tcp = type === GSO_TCP_V4 || type === GSO_TCP_V6;
    this.count = 0;
    if (!this.#tcp && type !== GSO_UDP_L4) return 0;
    if (this.#size === 0 || !this.#findHeaders()) return 0;
    if (this.#tcp && this.#ipv4 !== (type === GSO_TCP_V4)) return 0;
    this.count = Math.max(1, Math.ceil((length - this.header) / this.#size));
    return this.count;
  }

  /** @returns false if headers are missing, or extend beyond the packet */
  #findHeaders(): boolean {
    const frame = this.#frame;
    let at = ETHERNET_TYPE;
    while (at + 4 <= this.#transport && isTag(get16(frame, at))) at += 4;
    const type = get16(frame, at);
    this.#network = at + 2;
    this.#ipv4 = type === IPV4;
    const least = this.#ipv4 ? this.#ipv4Header() : IPV6_HEADER;
    if ((!this.#ipv4 && type !== IPV6) || least < IPV4_HEADER) return false;
    if (this.#network + least > this.#transport) return false;
    const shortest = this.#tcp ? TCP_HEADER : UDP_HEADER;
    if (this.#transport + shortest > this.#length) return false;
    const own = this.#tcp ? (frame[this.#transport + 12] >>> 4) * 4 : UDP_HEADER;
    this.header = this.#transport + own;
    return own >= shortest && this.header <= Math.min(this.#length, MAX_HEADER);
  }

  #ipv4Header(): number {
    return (this.#frame[this.#network] & 0x0f) * 4;
  }

  /** Writes segment i to `to`, from `at` on. @returns its bytes */
  write(i: number, to: Uint8Array, at: number): number {
    const from = this.header + i * this.#size;
    const payload = Math.max(0, Math.min(this.#size, this.#length - from));
    const length = this.header + payload;
    to.set(this.#frame.subarray(0, this.header), at);
    to.set(this.#frame.subarray(from, from + payload), at + this.header);
    this.#fixNetwork(i, to, at, length);
    if (this.#tcp) this.#fixTcp(i, to, at + this.#transport);
    else put16(to, at + this.#transport + 4, UDP_HEADER + payload);
    this.#fixChecksum(to, at, length);
    return length;
  }

  #fixNetwork(i: number, to: Uint8Array, at: number, length: number): void {
    const ip = at + this.#network;
    const size = length - this.#network;
    if (!this.#ipv4) return put16(to, ip + 4, size - IPV6_HEADER);
    put16(to, ip + 2, size);
    put16(to, ip + 4, (get16(to, ip + 4) + i) & 0xffff);
    put16(to, ip + 10, 0);
    put16(to, ip + 10, checksum(sum(to, ip, ip + this.#ipv4Header())));
  }

  #fixTcp(i: number, to: Uint8Array, tcp: number): void {
    const sequence = (get32(to, tcp + 4) + i * this.#size) >>> 0;
    put16(to, tcp + 4, sequence >>> 16);
    put16(to, tcp + 6, sequence);
    if (i > 0) to[tcp + TCP_FLAGS] &= ~CWR;
    if (i < this.count - 1) to[tcp + TCP_FLAGS] &= ~FIN_PSH;
  }

  #fixChecksum(to: Uint8Array, at: number, length: number): void {
    const transport = at + this.#transport;
    const addresses = at + this.#network + (this.#ipv4 ? 12 : 8);
    const bytes = this.#ipv4 ? 8 : 32;
    const field = this.#tcp ? TCP_CHECKSUM : UDP_CHECKSUM;
    put16(to, transport + field, 0);
    const pseudo =
      sum(to, addresses, addresses + bytes) +
      (this.#tcp ? PROTO_TCP : PROTO_UDP) +
      (length - this.#transport);
    const value = checksum(pseudo + sum(to, transport, at + length)) || 0xffff;
    put16(to, transport + field, value);
  }
}

function isTag(type: number): boolean {
  return type === 0x8100 || type === 0x88a8;
}

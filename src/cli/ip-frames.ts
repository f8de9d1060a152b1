/**
 * IP packets that a kernel accepts with metadata: lengths and header checksums are right, and the
 * checksum of UDP or TCP is that of the pseudo header, for whoever completes the packet or cuts it.
 * Addresses are those for benchmarks (RFC 2544: 198.18.0.0/15, RFC 5180: 2001:2::/48), the port is
 * the one whose packets are discarded.
 */
import { GSO_ECN, GSO_TCP_V4, GSO_TCP_V6 } from "../memory/index.ts";

const ETHERNET_BYTES = 14;
const IPV4_BYTES = 20;
const IPV6_BYTES = 40;
const UDP_BYTES = 8;
const TCP_BYTES = 20;
const UDP = 17;
const TCP = 6;
const DISCARD_PORT = 9;
const TTL = 64;
/** ACK and PSH; CWR, too, when the flow uses ECN: the first segment of a cut packet has it. */
const TCP_FLAGS = 0x18;
const TCP_CWR = 0x80;

const SOURCE_V4 = [198, 18, 0, 1];
const DESTINATION_V4 = [198, 18, 0, 2];
const SOURCE_V6 = [0x20, 0x01, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
const DESTINATION_V6 = [...SOURCE_V6.slice(0, 15), 2];

/** Offsets in a frame. */
export interface IpHeaders {
  readonly v6: boolean;
  readonly protocol: number;
  readonly ecn: boolean;
  /** UDP's or TCP's header. */
  readonly start: number;
  /** Its checksum. */
  readonly checksum: number;
  readonly payload: number;
}

function shape(v6: boolean, protocol: number, ecn = false): IpHeaders {
  const start = ETHERNET_BYTES + (v6 ? IPV6_BYTES : IPV4_BYTES);
  const tcp = protocol === TCP;
  const checksum = start + (tcp ? 16 : 6);
  return { v6, protocol, ecn, start, checksum, payload: start + (tcp ? TCP_BYTES : UDP_BYTES) };
}

const UDP_V4 = shape(false, UDP);
const TCP_V4 = shape(false, TCP);
const TCP_V4_ECN = shape(false, TCP, true);
const TCP_V6 = shape(true, TCP);

/** The headers of a frame that is cut like that; not cut at all, it is UDP. */
export function shapeOf(gsoType: number): IpHeaders {
  if (gsoType === GSO_TCP_V6) return TCP_V6;
  if (gsoType === GSO_TCP_V4) return TCP_V4;
  return gsoType === (GSO_TCP_V4 | GSO_ECN) ? TCP_V4_ECN : UDP_V4;
}

/** @returns the headers that a frame from our address has; null: none that `HeaderWriter` writes */
export function headersOf(frame: Uint8Array): IpHeaders | null {
  const type = (frame[12] << 8) | frame[13];
  if (type === 0x86dd) {
    const tcp = frame[ETHERNET_BYTES + 6] === TCP;
    return tcp && hasAt(frame, ETHERNET_BYTES + 8, SOURCE_V6) ? TCP_V6 : null;
  }
  if (type !== 0x0800 || !hasAt(frame, ETHERNET_BYTES + 12, SOURCE_V4)) return null;
  const protocol = frame[ETHERNET_BYTES + 9];
  return protocol === UDP ? UDP_V4 : protocol === TCP ? TCP_V4 : null;
}

function hasAt(frame: Uint8Array, at: number, bytes: readonly number[]): boolean {
  for (let i = 0; i < bytes.length; i++) if (frame[at + i] !== bytes[i]) return false;
  return true;
}

/** Writes the headers of one frame after another into the same bytes. */
export class HeaderWriter {
  readonly bytes: Uint8Array;
  readonly view: DataView;

  constructor(bytes: Uint8Array) {
    this.bytes = bytes;
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  }

  /** @param length bytes of the whole frame @returns where the payload starts */
  write(headers: IpHeaders, ethernet: Uint8Array, length: number): number {
    const { v6, protocol, start, checksum, payload } = headers;
    this.bytes.fill(0, 0, payload);
    this.bytes.set(ethernet);
    this.view.setUint16(12, v6 ? 0x86dd : 0x0800);
    const carried = length - start;
    if (v6) this.#ipv6(protocol, carried);
    else this.#ipv4(protocol, carried);
    if (protocol === UDP) this.#udp(start, carried);
    else this.#tcp(start, headers.ecn);
    const from = ETHERNET_BYTES + (v6 ? 8 : 12);
    this.view.setUint16(checksum, this.#sum(from, start, protocol + carried));
    return payload;
  }

  #ipv4(protocol: number, carried: number): void {
    const { bytes, view } = this;
    const at = ETHERNET_BYTES;
    bytes[at] = 0x45;
    view.setUint16(at + 2, IPV4_BYTES + carried);
    bytes[at + 8] = TTL;
    bytes[at + 9] = protocol;
    bytes.set(SOURCE_V4, at + 12);
    bytes.set(DESTINATION_V4, at + 16);
    view.setUint16(at + 10, ~this.#sum(at, at + IPV4_BYTES, 0) & 0xffff);
  }

  #ipv6(protocol: number, carried: number): void {
    const { bytes, view } = this;
    const at = ETHERNET_BYTES;
    bytes[at] = 0x60;
    view.setUint16(at + 4, carried);
    bytes[at + 6] = protocol;
    bytes[at + 7] = TTL;
    bytes.set(SOURCE_V6, at + 8);
    bytes.set(DESTINATION_V6, at + 24);
  }

  #udp(at: number, carried: number): void {
    this.view.setUint16(at, DISCARD_PORT);
    this.view.setUint16(at + 2, DISCARD_PORT);
    this.view.setUint16(at + 4, carried);
  }

  #tcp(at: number, ecn: boolean): void {
    const { bytes, view } = this;
    view.setUint16(at, DISCARD_PORT);
    view.setUint16(at + 2, DISCARD_PORT);
    bytes[at + 12] = (TCP_BYTES / 4) << 4;
    bytes[at + 13] = TCP_FLAGS | (ecn ? TCP_CWR : 0);
    view.setUint16(at + 14, 0xffff);
  }

  /** The sum of RFC 1071 over the words from one offset to another, and `more`. */
  #sum(from: number, to: number, more: number): number {
    let sum = more;
    for (let i = from; i < to; i += 2) sum += this.view.getUint16(i);
    while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
    return sum;
  }
}

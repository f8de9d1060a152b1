/**
 * The hash of a packet's flow, as receive side scaling has it: Toeplitz over its addresses and, if
 * it is a whole TCP or UDP packet, its ports. Microsoft, "RSS hashing functions"; the types are
 * those of VIRTIO 1.2, section 5.1.6.4.3.
 */
import { HASH_TYPE } from "../abi/index.ts";

/** Bytes of a key: 32 bits and the longest input. */
export const RSS_KEY_BYTES = 40;
/** What a hash covers. */
export const HASH_NONE = 0;
export const HASH_ADDRESSES = 1;
export const HASH_PORTS = 2;

/** Two IPv6 addresses and two ports. */
const INPUT_BYTES = 36;
const ETHERTYPE = 12;
const IPV4 = 0x0800;
const IPV6 = 0x86dd;
const VLAN = 0x8100;
const QINQ = 0x88a8;
const TCP = 6;
const UDP = 17;
const IPV4_HEADER = 20;
const IPV6_HEADER = 40;
const PORTS = 4;
/** More fragments follow, or an offset: without them the whole packet is here. */
const FRAGMENT = 0x3fff;

/** Made when the guest's settings change; a hash allocates nothing. */
export class FlowHash {
  readonly #types: number;
  /** What each value of each input byte adds. */
  readonly #added: Int32Array;
  /** Of the packet hashed last. */
  kind = HASH_NONE;

  /**
   * @param key RSS_KEY_BYTES
   * @param types HASH_TYPE bits
   */
  constructor(key: ArrayLike<number>, types: number) {
    this.#types = types;
    this.#added = tableOf(key);
  }

  /**
   * @param at of the packet's first byte
   * @param length readable bytes
   * @returns the hash, signed; 0 if `kind` is HASH_NONE
   */
  of(bytes: Uint8Array, at: number, length: number): number {
    this.kind = HASH_NONE;
    const end = at + length;
    let ip = at + ETHERTYPE + 2;
    if (ip > end) return 0;
    let type = (bytes[ip - 2] << 8) | bytes[ip - 1];
    for (let tags = 0; tags < 2 && (type === VLAN || type === QINQ); tags++) {
      ip += 4;
      if (ip > end) return 0;
      type = (bytes[ip - 2] << 8) | bytes[ip - 1];
    }
    if (type === IPV4) return this.#ipv4(bytes, ip, end);
    return type === IPV6 ? this.#ipv6(bytes, ip, end) : 0;
  }

  #ipv4(bytes: Uint8Array, ip: number, end: number): number {
    const header = (bytes[ip] & 0xf) * 4;
    if (ip + IPV4_HEADER > end || bytes[ip] >> 4 !== 4 || header < IPV4_HEADER) return 0;
    const protocol = bytes[ip + 9];
    const whole = (((bytes[ip + 6] << 8) | bytes[ip + 7]) & FRAGMENT) === 0;
    const wanted = protocol === TCP ? HASH_TYPE.TCP_V4 : protocol === UDP ? HASH_TYPE.UDP_V4 : 0;
    const ports = whole && (this.#types & wanted) !== 0 && ip + header + PORTS <= end;
    if (!ports && (this.#types & HASH_TYPE.IPV4) === 0) return 0;
    const hash = this.#add(0, bytes, ip + 12, 8);
    this.kind = ports ? HASH_PORTS : HASH_ADDRESSES;
    return ports ? hash ^ this.#add(8, bytes, ip + header, PORTS) : hash;
  }

  /** Behind extension headers ports are not looked for: a fragment header is one, too. */
  #ipv6(bytes: Uint8Array, ip: number, end: number): number {
    if (ip + IPV6_HEADER > end || bytes[ip] >> 4 !== 6) return 0;
    const next = bytes[ip + 6];
    const wanted = next === TCP ? HASH_TYPE.TCP_V6 : next === UDP ? HASH_TYPE.UDP_V6 : 0;
    const ports = (this.#types & wanted) !== 0 && ip + IPV6_HEADER + PORTS <= end;
    if (!ports && (this.#types & HASH_TYPE.IPV6) === 0) return 0;
    this.kind = ports ? HASH_PORTS : HASH_ADDRESSES;
    // Addresses and ports are adjacent only here, not in the packet if there are options.
    const hash = this.#add(0, bytes, ip + 8, 32);
    return ports ? hash ^ this.#add(32, bytes, ip + IPV6_HEADER, PORTS) : hash;
  }

  /** What bytes at a place of the input add to the hash. */
  #add(place: number, bytes: Uint8Array, from: number, count: number): number {
    const added = this.#added;
    let hash = 0;
    for (let i = 0; i < count; i++) hash ^= added[((place + i) << 8) | bytes[from + i]];
    return hash;
  }
}

/** Bit b of an input adds the 32 bits of the key from bit b on. */
function tableOf(key: ArrayLike<number>): Int32Array {
  const added = new Int32Array(INPUT_BYTES << 8);
  for (let place = 0; place < INPUT_BYTES; place++) {
    for (let value = 1; value < 256; value++) {
      const lowest = value & -value;
      const bit = place * 8 + Math.clz32(lowest) - 24;
      added[(place << 8) | value] = added[(place << 8) | (value & (value - 1))] ^ keyWord(key, bit);
    }
  }
  return added;
}

function keyWord(key: ArrayLike<number>, bit: number): number {
  const byte = bit >> 3;
  const word = (key[byte] << 24) | (key[byte + 1] << 16) | (key[byte + 2] << 8) | key[byte + 3];
  const shift = bit & 7;
  return shift === 0 ? word : (word << shift) | (key[byte + 4] >> (8 - shift));
}

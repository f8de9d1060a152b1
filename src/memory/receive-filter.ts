/** Which received packets a guest gets, by their destination address. */
import { hostBytes } from "./host-bytes.ts";

/** Slots of the table: a power of two, at least twice as many as it may hold. */
const SLOTS = 1024;
const LAST_SLOT = SLOTS - 1;
/** Spreads addresses that differ in a few bits (Knuth's multiplicative hash). */
const SPREAD = 0x9e3779b1;
const EMPTY = -1;
const ADDRESS_BYTES = 6;
const HIGH = 2 ** 32;

/** Made when the guest's settings change; a lookup allocates nothing. */
export class ReceiveFilter {
  readonly #allMulticast: boolean;
  /** The first two bytes of each address; EMPTY: a free slot. */
  readonly #high = new Int32Array(SLOTS).fill(EMPTY);
  /** The last four. */
  readonly #low = new Int32Array(SLOTS);

  /** @param addresses 48-bit numbers, at most SLOTS / 2 */
  constructor(addresses: readonly number[], allMulticast: boolean) {
    this.#allMulticast = allMulticast;
    for (const address of addresses) this.#add(Math.floor(address / HIGH), address | 0);
  }

  /**
   * @param at host address of the packet's first segment
   * @param size bytes of that segment
   * @param length bytes of the packet
   */
  takes(at: number, size: number, length: number): boolean {
    // An address that is not contiguous is for others to judge.
    if (size < ADDRESS_BYTES || length < ADDRESS_BYTES) return true;
    hostBytes.find(at, ADDRESS_BYTES);
    const { bytes, at: a } = hostBytes;
    const high = (bytes[a] << 8) | bytes[a + 1];
    const low = (bytes[a + 2] << 24) | (bytes[a + 3] << 16) | (bytes[a + 4] << 8) | bytes[a + 5];
    if ((high & 0x100) !== 0 && (this.#allMulticast || (high === 0xffff && low === -1)))
      return true;
    return this.#high[this.#slot(high, low)] !== EMPTY;
  }

  #add(high: number, low: number): void {
    const slot = this.#slot(high, low);
    this.#high[slot] = high;
    this.#low[slot] = low;
  }

  /** The slot of an address, or the free one that it would get: half of the slots are free. */
  #slot(high: number, low: number): number {
    let slot = Math.imul(low ^ high, SPREAD) >>> 22;
    for (; this.#high[slot] !== EMPTY; slot = (slot + 1) & LAST_SLOT) {
      if (this.#high[slot] === high && this.#low[slot] === low) break;
    }
    return slot;
  }
}

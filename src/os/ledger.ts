/**
 * Records the descriptors and mappings of one thread in shared memory, so that another thread can
 * release them: a thread whose JavaScript runs out of memory ends without `finally`. The kernel
 * releases them at the end of the process only, and a peer waits until then.
 */

/** One bit for each; higher descriptors are not recorded. */
const DESCRIPTORS = 65536;
/** A pair of address and length for each; more are not recorded. */
const MAPPINGS = 512;
const MAPPINGS_OFFSET = DESCRIPTORS / 8;

/** Memory of a ledger, shared between the thread that it is of and the one that reads it. */
export type Ledger = SharedArrayBuffer;

export function newLedger(): Ledger {
  return new SharedArrayBuffer(MAPPINGS_OFFSET + 16 * MAPPINGS);
}

const bitsOf = (ledger: Ledger): Int32Array => new Int32Array(ledger, 0, DESCRIPTORS / 32);
const mappingsOf = (ledger: Ledger): Float64Array =>
  new Float64Array(ledger, MAPPINGS_OFFSET, 2 * MAPPINGS);

/** Of this thread; empty: nothing is recorded. */
let bits: Int32Array = new Int32Array(0);
let mappings: Float64Array = new Float64Array(0);

/** From now on, records what this thread opens and maps. */
export function keepLedger(ledger: Ledger): void {
  bits = bitsOf(ledger);
  mappings = mappingsOf(ledger);
}

/** @returns `fd`, which a call of this thread has returned; negative: an error, not recorded */
export function recordFd(fd: number): number {
  if (fd >= 0 && fd >> 5 < bits.length) bits[fd >> 5] |= 1 << (fd & 31);
  return fd;
}

let closing: (fd: number) => void = () => {};

/** Calls `listener` before this thread closes a descriptor, whose number may be another's then. */
export function atClose(listener: (fd: number) => void): void {
  closing = listener;
}

/** Call it before `fd` is closed: another thread may get the same number right after. */
export function forgetFd(fd: number): void {
  closing(fd);
  if (fd >= 0 && fd >> 5 < bits.length) bits[fd >> 5] &= ~(1 << (fd & 31));
}

export function recordMapping(address: number, length: number): void {
  const slot = mappings.findIndex((length, i) => i % 2 === 1 && length === 0);
  if (slot < 0) return;
  mappings[slot - 1] = address;
  mappings[slot] = length;
}

export function forgetMapping(address: number): void {
  const slot = mappings.findIndex((at, i) => i % 2 === 0 && at === address && mappings[i + 1] > 0);
  if (slot >= 0) mappings[slot + 1] = 0;
}

export interface Held {
  readonly fds: readonly number[];
  readonly mappings: readonly { readonly address: number; readonly length: number }[];
}

/**
 * Reads what the thread of `ledger` holds. Once that thread has ended, nothing else releases it.
 */
export function heldBy(ledger: Ledger): Held {
  const words = bitsOf(ledger);
  const pairs = mappingsOf(ledger);
  const fds: number[] = [];
  words.forEach((word, i) => {
    for (let bit = 0; word !== 0 && bit < 32; bit++) if (word & (1 << bit)) fds.push(32 * i + bit);
  });
  const list = Array.from({ length: MAPPINGS }, (_, i) => ({
    address: pairs[2 * i],
    length: pairs[2 * i + 1],
  }));
  return { fds, mappings: list.filter(({ length }) => length > 0) };
}

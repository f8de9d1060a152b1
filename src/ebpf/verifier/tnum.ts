/**
 * Tristate numbers: each of 64 bits is 0, 1 or unknown (as in the Linux
 * kernel's kernel/bpf/tnum.c). A number n is a member if `(n & ~mask) ==
 * value`. 64-bit words are pairs of signed 32-bit halves, which V8 keeps in
 * registers; a BigInt per step would cost ten times as much.
 */

const TWO_32 = 2 ** 32;

export class Tnum {
  /** Low and high half of the known bits; 0 if unknown. */
  readonly vl: number;
  readonly vh: number;
  /** Low and high half of the mask: 1 if unknown. */
  readonly ml: number;
  readonly mh: number;

  constructor(vl: number, vh: number, ml: number, mh: number) {
    this.vl = vl;
    this.vh = vh;
    this.ml = ml;
    this.mh = mh;
  }

  get isConstant(): boolean {
    return (this.ml | this.mh) === 0;
  }
}

export const UNKNOWN_BITS = new Tnum(0, 0, -1, -1);

const carry = (a: number, b: number): number => ((a >>> 0) + (b >>> 0) >= TWO_32 ? 1 : 0);
const borrow = (a: number, b: number): number => (a >>> 0 < b >>> 0 ? 1 : 0);

/** The carry is unknown if the sums of smallest and of largest operands differ in it. */
export function addBits(a: Tnum, b: Tnum): Tnum {
  const ml = (a.ml + b.ml) | 0;
  const mh = (a.mh + b.mh + carry(a.ml, b.ml)) | 0;
  const vl = (a.vl + b.vl) | 0;
  const vh = (a.vh + b.vh + carry(a.vl, b.vl)) | 0;
  const sl = (ml + vl) | 0;
  const sh = (mh + vh + carry(ml, vl)) | 0;
  const ul = (sl ^ vl) | a.ml | b.ml;
  const uh = (sh ^ vh) | a.mh | b.mh;
  return new Tnum(vl & ~ul, vh & ~uh, ul, uh);
}

export function subBits(a: Tnum, b: Tnum): Tnum {
  const dl = (a.vl - b.vl) | 0;
  const dh = (a.vh - b.vh - borrow(a.vl, b.vl)) | 0;
  const al = (dl + a.ml) | 0;
  const ah = (dh + a.mh + carry(dl, a.ml)) | 0;
  const bl = (dl - b.ml) | 0;
  const bh = (dh - b.mh - borrow(dl, b.ml)) | 0;
  const ul = (al ^ bl) | a.ml | b.ml;
  const uh = (ah ^ bh) | a.mh | b.mh;
  return new Tnum(dl & ~ul, dh & ~uh, ul, uh);
}

export function andBits(a: Tnum, b: Tnum): Tnum {
  const vl = a.vl & b.vl;
  const vh = a.vh & b.vh;
  return new Tnum(vl, vh, (a.vl | a.ml) & (b.vl | b.ml) & ~vl, (a.vh | a.mh) & (b.vh | b.mh) & ~vh);
}

export function orBits(a: Tnum, b: Tnum): Tnum {
  const vl = a.vl | b.vl;
  const vh = a.vh | b.vh;
  return new Tnum(vl, vh, (a.ml | b.ml) & ~vl, (a.mh | b.mh) & ~vh);
}

export function xorBits(a: Tnum, b: Tnum): Tnum {
  const ml = a.ml | b.ml;
  const mh = a.mh | b.mh;
  return new Tnum((a.vl ^ b.vl) & ~ml, (a.vh ^ b.vh) & ~mh, ml, mh);
}

const shiftLeftHigh = (l: number, h: number, n: number): number =>
  n === 0 ? h : n >= 32 ? l << (n - 32) : (h << n) | (l >>> (32 - n));
const shiftLeftLow = (l: number, n: number): number => (n >= 32 ? 0 : l << n);
const shiftRightLow = (l: number, h: number, n: number): number =>
  n === 0 ? l : n >= 32 ? h >>> (n - 32) : (l >>> n) | (h << (32 - n));

/** @param n 0..63, as in all shifts of this file */
export function shiftLeft(a: Tnum, n: number): Tnum {
  return new Tnum(
    shiftLeftLow(a.vl, n) | 0,
    shiftLeftHigh(a.vl, a.vh, n) | 0,
    shiftLeftLow(a.ml, n) | 0,
    shiftLeftHigh(a.ml, a.mh, n) | 0,
  );
}

export function shiftRight(a: Tnum, n: number): Tnum {
  return new Tnum(
    shiftRightLow(a.vl, a.vh, n) | 0,
    n >= 32 ? 0 : (a.vh >>> n) | 0,
    shiftRightLow(a.ml, a.mh, n) | 0,
    n >= 32 ? 0 : (a.mh >>> n) | 0,
  );
}

/** Arithmetic shift: copies the top bit, of the mask as well. */
export function shiftRightSigned(a: Tnum, n: number): Tnum {
  if (n < 32) {
    return new Tnum(
      shiftRightLow(a.vl, a.vh, n) | 0,
      a.vh >> n,
      shiftRightLow(a.ml, a.mh, n) | 0,
      a.mh >> n,
    );
  }
  return new Tnum(a.vh >> (n - 32), a.vh >> 31, a.mh >> (n - 32), a.mh >> 31);
}

/** Returns the high half of the 64-bit product of two unsigned 32-bit numbers. */
function productHigh(a: number, b: number): number {
  const al = a & 0xffff;
  const ah = a >>> 16;
  const bl = b & 0xffff;
  const bh = b >>> 16;
  const middle = ah * bl + ((al * bl) >>> 16);
  const other = al * bh + (middle & 0xffff);
  return (ah * bh + Math.floor(middle / 65536) + Math.floor(other / 65536)) | 0;
}

/**
 * Long multiplication. Kernels before 6.18 and since differ (kernel/bpf/tnum.c, tnum_mul), and
 * neither is always more precise. So only bits that both know are known here.
 */
export function mulBits(a: Tnum, b: Tnum): Tnum {
  return joinKnownBits(mulBySums(a, b), mulByUnions(a, b));
}

/**
 * Before Linux 6.18: known bits are multiplied, and unknown ones add their possible contributions.
 */
function mulBySums(a: Tnum, b: Tnum): Tnum {
  if (b.isConstant && !a.isConstant) return mulBySums(b, a);
  const vl = Math.imul(a.vl, b.vl);
  const vh = (productHigh(a.vl, b.vl) + Math.imul(a.vl, b.vh) + Math.imul(a.vh, b.vl)) | 0;
  let sum = new Tnum(0, 0, 0, 0);
  for (let left = a, bits = b; (left.vl | left.vh | left.ml | left.mh) !== 0; ) {
    if (left.vl & 1) sum = addBits(sum, new Tnum(0, 0, bits.ml, bits.mh));
    else if (left.ml & 1) {
      sum = addBits(sum, new Tnum(0, 0, bits.vl | bits.ml, bits.vh | bits.mh));
    }
    left = shiftRight(left, 1);
    bits = shiftLeft(bits, 1);
  }
  return addBits(new Tnum(vl, vh, 0, 0), sum);
}

/**
 * Since Linux 6.18: for each bit of `a`, adds the shifted `b`, or a union if the bit is unknown.
 */
function mulByUnions(a: Tnum, b: Tnum): Tnum {
  let sum = new Tnum(0, 0, 0, 0);
  for (let left = a, bits = b; (left.vl | left.vh | left.ml | left.mh) !== 0; ) {
    if (left.vl & 1) sum = addBits(sum, bits);
    else if (left.ml & 1) sum = joinKnownBits(sum, addBits(sum, bits));
    left = shiftRight(left, 1);
    bits = shiftLeft(bits, 1);
  }
  return sum;
}

/** Returns the bits that both know to be equal. */
export function joinKnownBits(a: Tnum, b: Tnum): Tnum {
  const ml = a.ml | b.ml | (a.vl ^ b.vl);
  const mh = a.mh | b.mh | (a.vh ^ b.vh);
  return new Tnum(a.vl & ~ml, a.vh & ~mh, ml, mh);
}

/**
 * Returns the bits that all of `min..max` share. @param min, max integers of one sign, min <= max,
 * less than 2^53 from 0
 */
export function bitsOfRange(min: number, max: number): Tnum {
  const high = Math.floor(min / TWO_32);
  const differs = high ^ Math.floor(max / TWO_32);
  if (differs !== 0) {
    const mask = lowMask(32 - Math.clz32(differs));
    return new Tnum(0, high & ~mask, -1, mask);
  }
  const low = (min % TWO_32) | 0;
  const mask = lowMask(32 - Math.clz32(low ^ (max % TWO_32)));
  return new Tnum(low & ~mask, high, mask, 0);
}

const lowMask = (bits: number): number => (bits === 32 ? -1 : (1 << bits) - 1);

/**
 * Returns the bits that either knows. If they contradict each other
 * (in dead code), those of both are unknown.
 */
export function meetKnownBits(a: Tnum, b: Tnum): Tnum {
  const ml = a.ml & b.ml;
  const mh = a.mh & b.mh;
  const vl = (a.vl | b.vl) & ~ml;
  const vh = (a.vh | b.vh) & ~mh;
  const same = a.ml === ml && a.mh === mh && a.vl === vl && a.vh === vh;
  return same ? a : new Tnum(vl, vh, ml, mh);
}

/** True if every member of `inner` is a member of `outer`. */
export function containsBits(outer: Tnum, inner: Tnum): boolean {
  return (
    (inner.ml & ~outer.ml) === 0 &&
    (inner.mh & ~outer.mh) === 0 &&
    (inner.vl & ~outer.ml) === outer.vl &&
    (inner.vh & ~outer.mh) === outer.vh
  );
}

/**
 * Deductions between the bits and ranges of a number: exactly the steps of Linux 6.18's
 * reg_bounds_sync (kernel/bpf/verifier.c), in their order. More precision than the kernel's would
 * be sound but useless: the guest refuses a program that needs it. So a missing step only makes the
 * verdict stricter, and an additional step makes it wrong.
 *
 * Bounds are doubles. Beyond 2^53 a lower bound is rounded down and an
 * upper bound up, to infinity if necessary.
 */
import { bitsOfRange, meetKnownBits, Tnum } from "./tnum.ts";

export const TWO_32 = 2 ** 32;
export const EXACT = 2 ** 53;
export const MAX_U32 = 0xffffffff;
export const MIN_S32 = -0x80000000;
export const MAX_S32 = 0x7fffffff;

/** What is known of a number during a computation. */
export interface Known {
  bits: Tnum;
  /** As signed 64 bits; infinite if only the bits bound it. */
  min: number;
  max: number;
  /** As unsigned 64 bits. */
  umin: number;
  umax: number;
  /** The low half as unsigned, then as signed 32 bits. */
  umin32: number;
  umax32: number;
  smin32: number;
  smax32: number;
}

/** Bounds from the halves of a signed number: exact, or rounded outwards. */
export const lowerBound = (low: number, high: number): number =>
  high < -(2 ** 21) ? -Infinity : high < 2 ** 21 ? high * TWO_32 + (low >>> 0) : EXACT;
export const upperBound = (low: number, high: number): number =>
  high >= 2 ** 21 ? Infinity : high >= -(2 ** 21) ? high * TWO_32 + (low >>> 0) : -EXACT;
const lowerUnsigned = (low: number, high: number): number =>
  high >>> 0 < 2 ** 21 ? high * TWO_32 + (low >>> 0) : EXACT;
const upperUnsigned = (low: number, high: number): number =>
  high >>> 0 < 2 ** 21 ? high * TWO_32 + (low >>> 0) : Infinity;

export const isExact = (n: number): boolean => n > -EXACT && n < EXACT;

export function forgetRanges(k: Known): void {
  k.min = -Infinity;
  k.max = Infinity;
  k.umin = 0;
  k.umax = Infinity;
  forget32(k);
}

export function forget32(k: Known): void {
  k.umin32 = 0;
  k.umax32 = MAX_U32;
  k.smin32 = MIN_S32;
  k.smax32 = MAX_S32;
}

/** Refines the ranges of the low half by its bits. */
export function update32({ bits: { vl, ml } }: Known, k: Known): void {
  k.smin32 = Math.max(k.smin32, vl | (ml & MIN_S32));
  k.smax32 = Math.min(k.smax32, vl | (ml & MAX_S32));
  k.umin32 = Math.max(k.umin32, vl >>> 0);
  k.umax32 = Math.min(k.umax32, (vl | ml) >>> 0);
}

/** Refines ranges by bits. In signed ranges the sign bit counts negatively. */
export function updateFromBits(k: Known): void {
  update32(k, k);
  const { vl, vh, ml, mh } = k.bits;
  k.min = Math.max(k.min, lowerBound(vl, vh | (mh & MIN_S32)));
  k.max = Math.min(k.max, upperBound(vl | ml, vh | (mh & MAX_S32)));
  k.umin = Math.max(k.umin, lowerUnsigned(vl, vh));
  k.umax = Math.min(k.umax, upperUnsigned(vl | ml, vh | mh));
}

/**
 * Bounds the low half if all numbers of a range have the same upper half, or if there are two
 * consecutive upper halves, as signed.
 */
function lowerHalf(k: Known, min: number, max: number): void {
  if (!isExact(min) || !isExact(max)) return;
  const above = Math.floor(min / TWO_32);
  const last = Math.floor(max / TWO_32);
  if (last - above > 1 || last < above) return;
  const low = min - above * TWO_32;
  const high = max - last * TWO_32;
  if (last === above) {
    if (low > high) return;
    k.umin32 = Math.max(k.umin32, low);
    k.umax32 = Math.min(k.umax32, high);
    if ((low | 0) > (high | 0)) return;
  } else if ((low | 0) >= 0 || (high | 0) < 0) return;
  k.smin32 = Math.max(k.smin32, low | 0);
  k.smax32 = Math.min(k.smax32, high | 0);
}

function deduce32(k: Known): void {
  lowerHalf(k, k.umin, k.umax);
  lowerHalf(k, k.min, k.max);
  if ((k.umin32 | 0) <= (k.umax32 | 0)) {
    k.smin32 = Math.max(k.smin32, k.umin32 | 0);
    k.smax32 = Math.min(k.smax32, k.umax32 | 0);
  }
  if (k.smin32 >>> 0 <= k.smax32 >>> 0) {
    k.umin32 = Math.max(k.umin32, k.smin32 >>> 0);
    k.umax32 = Math.min(k.umax32, k.smax32 >>> 0);
  }
}

function deduce64(k: Known): void {
  // Below 2^63 both views are equal.
  if (k.umax < 2 ** 63) {
    k.min = Math.max(k.min, k.umin);
    k.max = Math.min(k.max, k.umax);
  }
  const low = k.min >= 0 ? k.min : EXACT;
  const oneSign = k.min < 0 ? k.max < 0 && k.min <= k.max : k.max < 0 || k.min <= k.max;
  if (oneSign) {
    k.umin = Math.max(k.umin, low);
    if (k.max >= 0) k.umax = Math.min(k.umax, k.max);
  } else if (k.umax < (k.min >= 0 ? k.min : 2 ** 63)) {
    // A signed range of both signs, with an unsigned range of one sign.
    k.min = k.umin;
    if (k.max >= 0) k.umax = Math.min(k.umax, k.max);
  } else if (k.max >= 0 && k.max < k.umin) {
    k.max = k.umax < 2 ** 63 ? k.umax : -1;
    k.umin = Math.max(k.umin, low);
  }
}

/** Refines the bounds of 64-bit ranges by the possible low halves. */
function deduceMixed(k: Known): void {
  if (k.umin < EXACT) k.umin = Math.max(k.umin, withLow(k.umin, k.umin32));
  if (k.umax < EXACT) k.umax = Math.min(k.umax, withLow(k.umax, k.umax32));
  if (isExact(k.min)) k.min = Math.max(k.min, withLow(k.min, k.umin32));
  if (isExact(k.max)) k.max = Math.min(k.max, withLow(k.max, k.umax32));
  if (k.smin32 < 0 || k.min < MIN_S32 || k.max > MAX_S32) return;
  k.min = k.smin32;
  k.max = k.smax32;
  k.umin = k.smin32;
  k.umax = k.smax32;
  if (k.min <= k.max) k.bits = meetKnownBits(k.bits, bitsOfRange(k.min, k.max));
}

const withLow = (n: number, low: number): number => Math.floor(n / TWO_32) * TWO_32 + low;

/** @returns true if anything was refined */
function deduce(k: Known): boolean {
  const { bits, min, max, umin, umax, umin32, umax32, smin32, smax32 } = k;
  deduce32(k);
  deduce64(k);
  deduceMixed(k);
  const same64 = k.min === min && k.max === max && k.umin === umin && k.umax === umax;
  const same32 = k.umin32 === umin32 && k.umax32 === umax32;
  const sameSigned32 = k.smin32 === smin32 && k.smax32 === smax32;
  return !(same64 && same32 && sameSigned32 && k.bits === bits);
}

/** Refines the bits by those that all numbers of the ranges share. */
function bitsFromRanges(k: Known): void {
  let bits = k.bits;
  if (k.umax < EXACT && k.umin <= k.umax) bits = meetKnownBits(bits, bitsOfRange(k.umin, k.umax));
  else if (k.max < 0 && isExact(k.min) && k.min <= k.max) {
    bits = meetKnownBits(bits, bitsOfRange(k.min, k.max));
  }
  if (k.umin32 <= k.umax32) {
    const { vl, ml } = bitsOfRange(k.umin32, k.umax32);
    bits = meetKnownBits(bits, new Tnum(vl, 0, ml, -1));
  }
  k.bits = bits;
}

/**
 * Refines bits and ranges by each other.
 * @returns false if they contradict: the ranges are dropped
 * then, because the kernel follows such a path
 */
export function sync(k: Known): boolean {
  updateFromBits(k);
  if (k.bits.isConstant && isSane(k)) return true;
  // Three times, as the kernel does, unless the first pass refined nothing.
  if (deduce(k) && deduce(k)) deduce(k);
  bitsFromRanges(k);
  updateFromBits(k);
  if (isSane(k)) return true;
  forgetRanges(k);
  return false;
}

const isSane = (k: Known): boolean =>
  k.umin <= k.umax && k.min <= k.max && k.umin32 <= k.umax32 && k.smin32 <= k.smax32;

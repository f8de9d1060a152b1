/**
 * What is known of a number in a register: its bits, its range as a signed 64-bit number, and the ranges of its
 * low half, unsigned and signed. Each view catches what the others cannot say; `settle` lets them learn from each
 * other. Values are immutable; two registers that hold the very same object hold the same number, so what a
 * comparison tells of one it tells of the other.
 *
 * Bounds are doubles: whole, exact, or infinite where the true bound is not known to lie within a double's exact
 * range. Unsigned 64-bit ranges are not kept: below 2^63 they are the signed ones, and nothing above indexes memory.
 */
import { bitsOfRange, containsBits, meetBits, Tnum, UNKNOWN_BITS } from "./tnum.ts";

const TWO_32 = 2 ** 32;
const EXACT = 2 ** 53;
export const MAX_U32 = 0xffffffff;
export const MIN_S32 = -0x80000000;
export const MAX_S32 = 0x7fffffff;

export class Scalar {
  readonly isPointer = false;
  readonly bits: Tnum;
  /** As signed 64 bits; infinite: only what 64 bits say. */
  readonly min: number;
  readonly max: number;
  /** The low half as unsigned, and as signed 32 bits. */
  readonly umin32: number;
  readonly umax32: number;
  readonly smin32: number;
  readonly smax32: number;

  constructor(
    bits: Tnum,
    min: number,
    max: number,
    u0: number,
    u1: number,
    s0: number,
    s1: number,
  ) {
    this.bits = bits;
    this.min = min;
    this.max = max;
    this.umin32 = u0;
    this.umax32 = u1;
    this.smin32 = s0;
    this.smax32 = s1;
  }

  get isConstant(): boolean {
    return this.bits.isConstant;
  }
}

/** A number of which nothing is known; a fresh one, equal to no other register. */
export function unknown(): Scalar {
  return new Scalar(UNKNOWN_BITS, -Infinity, Infinity, 0, MAX_U32, MIN_S32, MAX_S32);
}

/** The constant with these halves. */
export function constant(low: number, high: number): Scalar {
  const bits = new Tnum(low | 0, high | 0, 0, 0);
  const min = lowerBound(low, high);
  const max = upperBound(low, high);
  return new Scalar(bits, min, max, low >>> 0, low >>> 0, low | 0, low | 0);
}

/** A whole number of at most 53 bits. */
export function constantOf(n: number): Scalar {
  return constant(n | 0, Math.floor(n / TWO_32));
}

/** Numbers within min..max, signed 64 bits. */
export function between(min: number, max: number): Scalar {
  return settle(UNKNOWN_BITS, min, max, 0, MAX_U32, MIN_S32, MAX_S32) ?? unknown();
}

/** Numbers whose low half is within min..max as signed 32 bits; nothing is known of the upper half. */
export function lowBetween(min: number, max: number): Scalar {
  return settle(UNKNOWN_BITS, -Infinity, Infinity, 0, MAX_U32, min, max) ?? unknown();
}

/** The same with other bounds or bits; null where nothing is left. */
export function narrow(
  a: Scalar,
  to: {
    bits?: Tnum;
    min?: number;
    max?: number;
    umin32?: number;
    umax32?: number;
    smin32?: number;
    smax32?: number;
  },
): Scalar | null {
  const bits = to.bits ?? a.bits;
  const min = Math.max(to.min ?? a.min, a.min);
  const max = Math.min(to.max ?? a.max, a.max);
  const umin32 = Math.max(to.umin32 ?? a.umin32, a.umin32);
  const umax32 = Math.min(to.umax32 ?? a.umax32, a.umax32);
  const smin32 = Math.max(to.smin32 ?? a.smin32, a.smin32);
  const smax32 = Math.min(to.smax32 ?? a.smax32, a.smax32);
  const same =
    bits === a.bits &&
    min === a.min &&
    max === a.max &&
    umin32 === a.umin32 &&
    umax32 === a.umax32 &&
    smin32 === a.smin32 &&
    smax32 === a.smax32;
  return same ? a : settle(bits, min, max, umin32, umax32, smin32, smax32);
}

const unsigned = (low: number, high: number): number => (high >>> 0) * TWO_32 + (low >>> 0);

/** A lower and an upper bound from bits whose sign is known; the double is exact or rounded outwards. */
const lowerBound = (low: number, high: number): number =>
  Math.abs(high) < 2 ** 21 ? high * TWO_32 + (low >>> 0) : high * TWO_32;
const upperBound = (low: number, high: number): number =>
  Math.abs(high) < 2 ** 21 ? high * TWO_32 + (low >>> 0) : (high + 1) * TWO_32;

/**
 * Lets bits and ranges learn from each other.
 * @returns null where they contradict: no number is left, so the program never gets here.
 */
export function settle(
  bits: Tnum,
  min: number,
  max: number,
  umin32: number,
  umax32: number,
  smin32: number,
  smax32: number,
): Scalar | null {
  let t = bits;
  // Twice: what the second view learns may be news to the first.
  for (let round = 0; round < 2; round++) {
    const highest = t.vh | t.mh;
    if (t.mh >= 0) {
      min = Math.max(min, lowerBound(t.vl, t.vh));
      max = Math.min(max, upperBound(t.vl | t.ml, highest));
    }
    umin32 = Math.max(umin32, t.vl >>> 0);
    umax32 = Math.min(umax32, (t.vl | t.ml) >>> 0);

    const window = Math.floor(min / TWO_32);
    if (window === Math.floor(max / TWO_32)) {
      umin32 = Math.max(umin32, min - window * TWO_32);
      umax32 = Math.min(umax32, max - window * TWO_32);
    }
    if (min >= MIN_S32 && max <= MAX_S32) {
      smin32 = Math.max(smin32, min);
      smax32 = Math.min(smax32, max);
    }
    if (umin32 > MAX_S32 === umax32 > MAX_S32) {
      smin32 = Math.max(smin32, umin32 | 0);
      smax32 = Math.min(smax32, umax32 | 0);
    }
    if (smin32 < 0 === smax32 < 0) {
      umin32 = Math.max(umin32, smin32 >>> 0);
      umax32 = Math.min(umax32, smax32 >>> 0);
    }
    if (t.mh === 0 && Math.abs(t.vh) < 2 ** 20) {
      min = Math.max(min, t.vh * TWO_32 + umin32);
      max = Math.min(max, t.vh * TWO_32 + umax32);
    }
    if (min >= MIN_S32 && max <= MAX_S32) {
      min = Math.max(min, smin32);
      max = Math.min(max, smax32);
    }
    if (min > max || umin32 > umax32 || smin32 > smax32) return null;

    if (min >= 0 && max < EXACT) {
      const met = meetBits(t, bitsOfRange(min, max));
      if (met === null) return null;
      t = met;
    }
    const low = bitsOfRange(umin32, umax32);
    const met = meetBits(t, new Tnum(low.vl, 0, low.ml, -1));
    if (met === null) return null;
    t = met;
    if (t.isConstant) return settledConstant(t, min, max, umin32, umax32, smin32, smax32);
  }
  return new Scalar(t, min, max, umin32, umax32, smin32, smax32);
}

function settledConstant(
  t: Tnum,
  min: number,
  max: number,
  umin32: number,
  umax32: number,
  smin32: number,
  smax32: number,
): Scalar | null {
  const fits =
    lowerBound(t.vl, t.vh) <= max &&
    upperBound(t.vl, t.vh) >= min &&
    t.vl >>> 0 >= umin32 &&
    t.vl >>> 0 <= umax32 &&
    t.vl >= smin32 &&
    t.vl <= smax32;
  return fits ? constant(t.vl, t.vh) : null;
}

/** True where every number that `inner` allows is allowed by `outer`. */
export function contains(outer: Scalar, inner: Scalar): boolean {
  return (
    outer === inner ||
    (outer.min <= inner.min &&
      outer.max >= inner.max &&
      outer.umin32 <= inner.umin32 &&
      outer.umax32 >= inner.umax32 &&
      outer.smin32 <= inner.smin32 &&
      outer.smax32 >= inner.smax32 &&
      containsBits(outer.bits, inner.bits))
  );
}

/** True for a number that the abstract value allows; for tests. @param n 64 unsigned bits */
export function allows(a: Scalar, n: bigint): boolean {
  const signed = BigInt.asIntN(64, n);
  const low = Number(n & 0xffffffffn);
  const value = (BigInt(a.bits.vh >>> 0) << 32n) | BigInt(a.bits.vl >>> 0);
  const mask = (BigInt(a.bits.mh >>> 0) << 32n) | BigInt(a.bits.ml >>> 0);
  return (
    (n & ~mask & 0xffffffffffffffffn) === value &&
    (a.min === -Infinity || signed >= BigInt(a.min)) &&
    (a.max === Infinity || signed <= BigInt(a.max)) &&
    low >= a.umin32 &&
    low <= a.umax32 &&
    (low | 0) >= a.smin32 &&
    (low | 0) <= a.smax32
  );
}

/** For messages: `7`, `0..255`, `0..1016 in steps of 8`, `any`. */
export function describeScalar(a: Scalar): string {
  if (a.isConstant) {
    const { vl, vh } = a.bits;
    const exact = vh === vl >> 31 || (vh >= 0 && vh < 2 ** 21);
    return exact
      ? `${vh * TWO_32 + (vl >>> 0)}`
      : `0x${(BigInt(vh >>> 0) * 2n ** 32n + BigInt(vl >>> 0)).toString(16)}`;
  }
  const step = stepOf(a.bits);
  const steps = step > 1 ? ` in steps of ${step}` : "";
  if (Number.isFinite(a.min) && Number.isFinite(a.max)) return `${a.min}..${a.max}${steps}`;
  if (Number.isFinite(a.max)) return `at most ${a.max}${steps}`;
  if (Number.isFinite(a.min)) return `at least ${a.min}${steps}`;
  const unsignedMax = unsigned(a.bits.vl | a.bits.ml, a.bits.vh | a.bits.mh);
  return unsignedMax < 2 ** 63 ? `0..${unsignedMax}${steps}` : `any number${steps}`;
}

/** The largest power of two (up to 2^30) that divides every member, where the low bits are known to be 0. */
export function stepOf(bits: Tnum): number {
  const any = bits.vl | bits.ml;
  return any === 0 ? 2 ** 30 : Math.min(2 ** 30, (any & -any) >>> 0);
}

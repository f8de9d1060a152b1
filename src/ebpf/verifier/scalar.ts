/**
 * The abstract value of a number in a register: its bits, its ranges as 64 bits and those of its
 * low half, unsigned and signed. Each view is precise in cases in which the others are not;
 * `deduce.ts` refines them by each other. Values are immutable. Two registers that hold the same
 * object hold the same number, so a comparison refines both.
 */
import {
  EXACT,
  type Known,
  lowerBound,
  MAX_S32,
  MAX_U32,
  MIN_S32,
  sync,
  TWO_32,
  upperBound,
} from "./deduce.ts";
import { containsBits, Tnum, UNKNOWN_BITS } from "./tnum.ts";

export { MAX_S32, MAX_U32, MIN_S32 } from "./deduce.ts";

/** A number under construction. It has one owner until it is settled. */
export class Draft implements Known {
  readonly isPointer = false;
  bits: Tnum;
  min: number;
  max: number;
  umin: number;
  umax: number;
  umin32: number;
  umax32: number;
  smin32: number;
  smax32: number;
  /** It was copied: kernels then give it an id. */
  linked = false;
  /** A constant was added to a copy: after a comparison, kernels compute one from the other. */
  related = false;

  constructor(k: Readonly<Known>) {
    this.bits = k.bits;
    this.min = k.min;
    this.max = k.max;
    this.umin = k.umin;
    this.umax = k.umax;
    this.umin32 = k.umin32;
    this.umax32 = k.umax32;
    this.smin32 = k.smin32;
    this.smax32 = k.smax32;
  }

  /** True if all bits are known and no range contradicts them. */
  get isConstant(): boolean {
    return this.bits.isConstant && this.umin32 === this.umax32;
  }

  /** Returns the value after bits and ranges were refined by each other. */
  settled(): Scalar {
    if (sync(this) && this.bits.isConstant) become(this, this.bits.vl, this.bits.vh);
    return this;
  }
}

/** Immutable. */
export type Scalar = Readonly<Draft>;

const NOTHING: Known = {
  ...{ bits: UNKNOWN_BITS, min: -Infinity, max: Infinity, umin: 0, umax: Infinity },
  ...{ umin32: 0, umax32: MAX_U32, smin32: MIN_S32, smax32: MAX_S32 },
};

/** An unknown number, to refine. */
export const blank = (): Draft => new Draft(NOTHING);

/** Returns a new unknown number, equal to no other register. */
export const unknown = (): Scalar => blank();

/** Marks a number as copied. Constants are not linked. */
export function linkedCopy(a: Scalar): Scalar {
  if (!a.bits.isConstant) (a as Draft).linked = true;
  return a;
}

/** Ranges that survive the addition and subtraction of any 32-bit constant. */
const RELATED = 2 ** 31;

/**
 * Returns what is known of a number that kernels may recompute from another one by adding a
 * constant (sync_linked_regs): its bounds and its low bits, but not single bits between.
 */
export function related(a: Scalar): Scalar {
  const k = blank();
  const { vl, ml } = a.bits;
  const unknownBelow = ml === 0 ? -1 : (ml & -ml) - 1;
  k.bits = new Tnum(vl & unknownBelow, 0, ~unknownBelow, -1);
  if (a.min >= -RELATED && a.max <= RELATED) {
    k.min = a.min;
    k.max = a.max;
  }
  k.settled();
  k.linked = true;
  k.related = true;
  return k;
}

/** Returns another number of which the same is known. */
export const unlinked = (a: Scalar): Scalar => new Draft(a);

/** Returns the constant with these halves. */
export function constant(low: number, high: number): Scalar {
  const draft = blank();
  draft.bits = new Tnum(low | 0, high | 0, 0, 0);
  become(draft, low, high);
  return draft;
}

function become(draft: Draft, low: number, high: number): void {
  draft.min = lowerBound(low, high);
  draft.max = upperBound(low, high);
  const exact = high >>> 0 < 2 ** 21;
  draft.umin = exact ? draft.min : EXACT;
  draft.umax = exact ? draft.max : Infinity;
  draft.umin32 = low >>> 0;
  draft.umax32 = low >>> 0;
  draft.smin32 = low | 0;
  draft.smax32 = low | 0;
}

/** Returns the constant of an integer of at most 53 bits. */
export function constantOf(n: number): Scalar {
  return constant(n | 0, Math.floor(n / TWO_32));
}

/** Returns numbers within min..max, signed 64 bits. */
export function between(min: number, max: number): Scalar {
  const draft = blank();
  draft.min = min;
  draft.max = max;
  return draft.settled();
}

/**
 * Returns numbers whose low half is within min..max as signed 32 bits, with an unknown upper half.
 */
export function lowBetween(min: number, max: number): Scalar {
  const draft = blank();
  draft.smin32 = min;
  draft.smax32 = max;
  return draft.settled();
}

const unsigned = (low: number, high: number): number => (high >>> 0) * TWO_32 + (low >>> 0);

/** True if `outer` allows every number that `inner` allows. */
export function contains(outer: Scalar, inner: Scalar): boolean {
  return (
    outer === inner ||
    ((outer.linked || !inner.linked) &&
      (outer.related || !inner.related) &&
      outer.min <= inner.min &&
      outer.max >= inner.max &&
      outer.umin <= inner.umin &&
      outer.umax >= inner.umax &&
      outer.umin32 <= inner.umin32 &&
      outer.umax32 >= inner.umax32 &&
      outer.smin32 <= inner.smin32 &&
      outer.smax32 >= inner.smax32 &&
      containsBits(outer.bits, inner.bits))
  );
}

/** True if the abstract value allows the number; for tests. @param n 64 unsigned bits */
export function allows(a: Scalar, n: bigint): boolean {
  const signed = BigInt.asIntN(64, n);
  const low = Number(n & 0xffffffffn);
  const value = (BigInt(a.bits.vh >>> 0) << 32n) | BigInt(a.bits.vl >>> 0);
  const mask = (BigInt(a.bits.mh >>> 0) << 32n) | BigInt(a.bits.ml >>> 0);
  return (
    (n & ~mask & 0xffffffffffffffffn) === value &&
    (a.min === -Infinity || signed >= BigInt(a.min)) &&
    (a.max === Infinity || signed <= BigInt(a.max)) &&
    n >= BigInt(a.umin) &&
    (a.umax === Infinity || n <= BigInt(a.umax)) &&
    low >= a.umin32 &&
    low <= a.umax32 &&
    (low | 0) >= a.smin32 &&
    (low | 0) <= a.smax32
  );
}

/** Formats for messages: `7`, `0..255`, `0..1016 in steps of 8`, `any`. */
export function describeScalar(a: Scalar): string {
  if (a.bits.isConstant) {
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

/**
 * Returns the largest power of two (up to 2^30) that divides
 * every member, from low bits known to be 0.
 */
export function stepOf(bits: Tnum): number {
  const any = bits.vl | bits.ml;
  return any === 0 ? 2 ** 30 : Math.min(2 ** 30, (any & -any) >>> 0);
}

/**
 * Abstract arithmetic on numbers: bits by tnum.ts, ranges here, then `sync`. The result allows at
 * least each result of the concrete operation on operands that the abstract ones allow (checked by
 * property tests). It is no more precise than Linux 6.18 (adjust_scalar_min_max_vals in
 * kernel/bpf/verifier.c; checked by random programs).
 */
import { ALU32, ALU64 } from "../arithmetic.ts";
import type { AluOp, Bits, SwapTo } from "../opcode.ts";
import {
  EXACT,
  forget32,
  isExact,
  MAX_S32,
  MAX_U32,
  MIN_S32,
  TWO_32,
  update32,
  updateFromBits,
} from "./deduce.ts";
import { blank, constant, Draft, type Scalar, unknown } from "./scalar.ts";
import {
  addBits,
  andBits,
  bitsOfRange,
  mulBits,
  orBits,
  shiftLeft,
  shiftRight,
  shiftRightSigned,
  subBits,
  Tnum,
  UNKNOWN_BITS,
  xorBits,
} from "./tnum.ts";

const LIMIT = 2 ** 63;

type Range = readonly [number, number];

/** The bounds of each result, if nothing wraps. */
const SUMS = {
  add: (a0: number, a1: number, b0: number, b1: number): Range => [a0 + b0, a1 + b1],
  sub: (a0: number, a1: number, b0: number, b1: number): Range => [a0 - b1, a1 - b0],
  mul: (a0: number, a1: number, b0: number, b1: number): Range => {
    const products = [a0 * b0, a0 * b1, a1 * b0, a1 * b1];
    return [Math.min(...products), Math.max(...products)];
  },
} as const;
const BITS = { add: addBits, sub: subBits, mul: mulBits } as const;

const within = ([min, max]: Range, low: number, high: number): boolean => min >= low && max <= high;

/** Addition, subtraction, multiplication: each view separately, and unknown if it may wrap. */
function linear(op: "add" | "sub" | "mul", a: Scalar, b: Scalar): Draft {
  const ends = SUMS[op];
  const k = blank();
  k.bits = BITS[op](a.bits, b.bits);
  if (k.bits.isConstant && a.bits.isConstant && b.bits.isConstant) return k;
  const signed = ends(a.min, a.max, b.min, b.max);
  if (signed.every(isExact)) [k.min, k.max] = signed;
  const whole = ends(a.umin, a.umax, b.umin, b.umax);
  if (within(whole, 0, EXACT - 1)) [k.umin, k.umax] = whole;
  const low = ends(a.umin32, a.umax32, b.umin32, b.umax32);
  if (within(low, 0, MAX_U32)) [k.umin32, k.umax32] = low;
  const signedLow = ends(a.smin32, a.smax32, b.smin32, b.smax32);
  if (within(signedLow, MIN_S32, MAX_S32)) [k.smin32, k.smax32] = signedLow;
  return k;
}

/**
 * Bitwise operations: unsigned ranges from operands and bits. The signed
 * ranges are equal if the sign bit is clear.
 */
function bitwise(op: "and" | "or" | "xor", a: Scalar, b: Scalar): Draft {
  const k = blank();
  if (op === "and") {
    k.bits = andBits(a.bits, b.bits);
    k.umax = Math.min(a.umax, b.umax);
    k.umax32 = Math.min(a.umax32, b.umax32);
  } else if (op === "or") {
    k.bits = orBits(a.bits, b.bits);
    k.umin = Math.max(a.umin, b.umin);
    k.umin32 = Math.max(a.umin32, b.umin32);
  } else {
    k.bits = xorBits(a.bits, b.bits);
  }
  if (a.bits.ml === 0 && b.bits.ml === 0) {
    k.umin32 = k.bits.vl >>> 0;
    k.umax32 = k.umin32;
  }
  updateFromBits(k);
  return k;
}

function shiftedLeft(a: Scalar, n: number): Draft {
  const k = blank();
  k.bits = shiftLeft(a.bits, n);
  if (n === 32) {
    // Sign extension by two shifts: doubles hold these bounds exactly.
    k.min = a.smin32 * TWO_32;
    k.max = a.smax32 * TWO_32;
  }
  if (a.umax <= 2 ** (63 - n) && a.umax < EXACT) {
    k.umin = a.umin * 2 ** n;
    k.umax = a.umax * 2 ** n;
  }
  shiftedLeft32(k, a, n);
  updateFromBits(k);
  return k;
}

function shiftedLeft32(k: Draft, a: Scalar, n: number): void {
  if (n > 31 || a.umax32 > 2 ** (31 - n)) return;
  k.umin32 = a.umin32 * 2 ** n;
  k.umax32 = a.umax32 * 2 ** n;
}

function shiftedRight(a: Scalar, n: number): Draft {
  const k = blank();
  k.bits = shiftRight(a.bits, n);
  k.umin = Math.floor(a.umin / 2 ** n);
  k.umax = Math.floor(a.umax / 2 ** n);
  updateFromBits(k);
  return k;
}

function shiftedRightSigned(a: Scalar, n: number): Draft {
  const k = blank();
  k.bits = shiftRightSigned(a.bits, n);
  const min = Math.floor(Math.max(a.min, -LIMIT) / 2 ** n);
  const max = a.max < LIMIT ? Math.floor(a.max / 2 ** n) : LIMIT / 2 ** n - 1;
  if (isExact(min)) k.min = min;
  if (isExact(max)) k.max = max;
  updateFromBits(k);
  return k;
}

const low = (bits: Tnum): Tnum => new Tnum(bits.vl, 0, bits.ml, 0);

/** Shifts the low half; the upper half is zero afterwards. The sign is bit 31. */
function shift32(op: "lsh" | "rsh" | "arsh", a: Scalar, n: number): Draft {
  const k = blank();
  if (op === "lsh") {
    k.bits = low(shiftLeft(low(a.bits), n));
    shiftedLeft32(k, a, n);
  } else if (op === "rsh") {
    k.bits = shiftRight(low(a.bits), n);
    k.umin32 = a.umin32 >>> n;
    k.umax32 = a.umax32 >>> n;
  } else {
    k.bits = new Tnum(a.bits.vl >> n, 0, a.bits.ml >> n, 0);
    k.smin32 = a.smin32 >> n;
    k.smax32 = a.smax32 >> n;
  }
  update32(k, k);
  return k;
}

const bigintOf = (a: Scalar): bigint => (BigInt(a.bits.vh >>> 0) << 32n) | BigInt(a.bits.vl >>> 0);

function fold(op: AluOp, bits: Bits, a: Scalar, b: Scalar): Scalar {
  if (bits === 32) return constant(ALU32[op](a.bits.vl >>> 0, b.bits.vl >>> 0) | 0, 0);
  const value = BigInt.asUintN(64, ALU64[op](bigintOf(a), bigintOf(b)));
  return constant(Number(BigInt.asIntN(32, value)), Number(BigInt.asIntN(32, value >> 32n)));
}

/** Kernels follow shifts only by constants below the width (is_safe_to_compute_dst_reg_range). */
const isCount = (b: Scalar, bits: Bits): boolean =>
  b.isConstant && b.bits.vh === 0 && b.bits.vl >>> 0 < bits;

function alu64(op: AluOp, a: Scalar, b: Scalar): Draft | null {
  switch (op) {
    case "add":
    case "sub":
    case "mul":
      return linear(op, a, b);
    case "and":
    case "or":
    case "xor":
      return bitwise(op, a, b);
    case "lsh":
      return isCount(b, 64) ? shiftedLeft(a, b.bits.vl) : null;
    case "rsh":
      return isCount(b, 64) ? shiftedRight(a, b.bits.vl) : null;
    case "arsh":
      return isCount(b, 64) ? shiftedRightSigned(a, b.bits.vl) : null;
    default:
      // Kernels before 7.0 do not follow division and remainder, so programs must not rely on it.
      return null;
  }
}

/** Zero-extends the low half: its ranges become those of the whole (zext_32_to_64). */
function extendZero(k: Draft): Scalar {
  k.bits = low(k.bits);
  k.umin = k.umin32;
  k.umax = k.umax32;
  const signed = k.smin32 >= 0 && k.smax32 >= 0;
  k.min = signed ? k.smin32 : 0;
  k.max = signed ? k.smax32 : MAX_U32;
  return k.settled();
}

/** Zero-extends the low half. Returns the same object if that changes nothing. */
export function zeroExtend(a: Scalar): Scalar {
  return a.umax <= MAX_U32 ? a : extendZero(new Draft(a));
}

/**
 * Computes `a op b`. Returns a new object: a later refinement of
 * the result must not refine the operands.
 */
export function compute(op: AluOp, bits: Bits, a: Scalar, b: Scalar): Scalar {
  if ((op === "lsh" || op === "arsh") && a.isConstant && isCount(b, bits)) {
    return fold(op, bits, a, b);
  }
  if (bits === 64) return alu64(op, a, b)?.settled() ?? unknown();
  if (op !== "lsh" && op !== "rsh" && op !== "arsh") {
    const k = alu64(op, a, b);
    return k === null ? unknown() : extendZero(k);
  }
  // Results that kernels do not follow are unknown as a whole, not even zero extended.
  return isCount(b, 32) ? extendZero(shift32(op, a, b.bits.vl)) : unknown();
}

/**
 * Adds a number to the variable part of an address, or subtracts it.
 * Kernels keep no ranges of its low half.
 */
export function displaced(op: "add" | "sub", offset: Scalar, by: Scalar): Scalar {
  const k = linear(op, offset, by);
  forget32(k);
  return k.settled();
}

/**
 * Moves the low `from` bits, sign extended, as far as kernels follow it (coerce_reg_to_size_sx):
 * constants, and ranges of one sign that differ only in those bits.
 */
export function movedSigned(a: Scalar, from: 8 | 16 | 32, bits: Bits): Scalar {
  const k = blank();
  if (a.bits.isConstant) {
    const up = 32 - from;
    const value = (a.bits.vl << up) >> up;
    return constant(value, bits === 64 ? value >> 31 : 0);
  }
  const span = 2 ** from;
  const [min, max] = bits === 64 ? [a.min, a.max] : [a.smin32, a.smax32];
  const above = Math.floor(min / span);
  const sign = (n: number): boolean => n - above * span >= span / 2;
  const followed = isExact(min) && isExact(max) && Math.floor(max / span) === above;
  if (followed && sign(min) === sign(max)) {
    const moved = (above + (sign(min) ? 1 : 0)) * span;
    k.smin32 = min - moved;
    k.smax32 = max - moved;
    k.bits = bitsOfRange(k.smin32, k.smax32);
  } else {
    k.smin32 = -span / 2;
    k.smax32 = span / 2 - 1;
    k.bits = UNKNOWN_BITS;
  }
  if (bits === 32) return extendZero(k);
  k.min = k.smin32;
  k.max = k.smax32;
  return k.settled();
}

export function negate(a: Scalar, bits: Bits): Scalar {
  return compute("sub", bits, constant(0, 0), a);
}

/** Byte order: only the length is known afterwards. Constants are not tracked. */
export function swapped(a: Scalar, to: SwapTo, width: 16 | 32 | 64): Scalar {
  if (width === 64) return to === "le" ? new Draft(a).settled() : unknown();
  return to === "le"
    ? truncated(a, width === 32 ? 4 : 2)
    : truncated(unknown(), width === 32 ? 4 : 2);
}

/** Returns a value of `size` bytes loaded from memory. */
export function loaded(size: 1 | 2 | 4 | 8, signed: boolean): Scalar {
  if (size === 8) return unknown();
  return signed
    ? movedSigned(unknown(), (8 * size) as 8 | 16 | 32, 64)
    : truncated(unknown(), size);
}

/** Returns the low `size` bytes, zero extended (coerce_reg_to_size), as a load of them gives. */
export function truncated(a: Scalar, size: 1 | 2 | 4 | 8): Scalar {
  if (size === 8) return a;
  const span = 2 ** (8 * size);
  const mask = size === 4 ? -1 : span - 1;
  if (a.umax < span) return a;
  const k = new Draft(a);
  k.bits = new Tnum(a.bits.vl & mask, 0, a.bits.ml & mask, 0);
  const above = Math.floor(a.umin / span);
  const same = a.umax < EXACT && Math.floor(a.umax / span) === above;
  k.umin = same ? a.umin - above * span : 0;
  k.umax = same ? a.umax - above * span : span - 1;
  k.min = k.umin;
  k.max = k.umax;
  if (size < 4) forget32(k);
  return k.settled();
}

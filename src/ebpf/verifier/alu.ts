/**
 * Arithmetic on what is known of numbers: for every operation, bits by tnum.ts and ranges here. The result allows
 * at least each result of the concrete operation on numbers that the operands allow (held by properties).
 */
import { ALU32, ALU64 } from "../arithmetic.ts";
import type { AluOp, Bits, SwapTo } from "../opcode.ts";
import {
  between,
  constant,
  MAX_S32,
  MAX_U32,
  MIN_S32,
  narrow,
  type Scalar,
  settle,
  unknown,
} from "./scalar.ts";
import {
  addBits,
  andBits,
  mulBits,
  orBits,
  shiftLeft,
  shiftRight,
  shiftRightSigned,
  subBits,
  Tnum,
  xorBits,
} from "./tnum.ts";

const EXACT = 2 ** 53;
const LIMIT = 2 ** 63;

interface Range {
  readonly min: number;
  readonly max: number;
}
const ANY: Range = { min: -Infinity, max: Infinity };

/** A range that an operation computed in doubles; beyond their exact range it says nothing, as it may wrap. */
const exactly = (min: number, max: number): Range =>
  min > -EXACT && max < EXACT ? { min, max } : ANY;

function sumRange(a: Range, b: Range): Range {
  return exactly(a.min + b.min, a.max + b.max);
}

function differenceRange(a: Range, b: Range): Range {
  return exactly(a.min - b.max, a.max - b.min);
}

function productRange(a: Range, b: Range): Range {
  const bounded = a.min > -LIMIT && a.max < LIMIT && b.min > -LIMIT && b.max < LIMIT;
  if (!bounded) return ANY;
  const corners = [a.min * b.min, a.min * b.max, a.max * b.min, a.max * b.max];
  return exactly(Math.min(...corners), Math.max(...corners));
}

const RANGES = { add: sumRange, sub: differenceRange, mul: productRange } as const;
const BITS = { add: addBits, sub: subBits, mul: mulBits } as const;

const low32 = (a: Scalar): Range => ({ min: a.umin32, max: a.umax32 });
const signed32 = (a: Scalar): Range => ({ min: a.smin32, max: a.smax32 });

/** Addition, subtraction, multiplication: the low half is computed from low halves, unsigned and signed. */
function linear(op: "add" | "sub" | "mul", a: Scalar, b: Scalar): Scalar {
  const whole = RANGES[op](a, b);
  const u = RANGES[op](low32(a), low32(b));
  const s = RANGES[op](signed32(a), signed32(b));
  const u32 = u.min >= 0 && u.max <= MAX_U32;
  const s32 = s.min >= MIN_S32 && s.max <= MAX_S32;
  return sound(
    settle(
      BITS[op](a.bits, b.bits),
      whole.min,
      whole.max,
      u32 ? u.min : 0,
      u32 ? u.max : MAX_U32,
      s32 ? s.min : MIN_S32,
      s32 ? s.max : MAX_S32,
    ),
  );
}

/** Operands that allow something give results that allow something; if not, say nothing rather than stop. */
const sound = (result: Scalar | null): Scalar => result ?? unknown();

function of(bits: Tnum, { min, max }: Range): Scalar {
  return sound(settle(bits, min, max, 0, MAX_U32, MIN_S32, MAX_S32));
}

function bitwise(op: "and" | "or" | "xor", a: Scalar, b: Scalar): Scalar {
  if (op === "and") {
    // The result is no larger than either operand that is not negative.
    const limit = Math.min(a.min >= 0 ? a.max : Infinity, b.min >= 0 ? b.max : Infinity);
    const range = a.min >= 0 || b.min >= 0 ? { min: 0, max: limit } : ANY;
    return of(andBits(a.bits, b.bits), range);
  }
  if (op === "or") {
    const range = a.min >= 0 && b.min >= 0 ? { min: Math.max(a.min, b.min), max: Infinity } : ANY;
    return of(orBits(a.bits, b.bits), range);
  }
  return of(xorBits(a.bits, b.bits), ANY);
}

function shiftedLeft(a: Scalar, n: number): Scalar {
  const factor = 2 ** n;
  // Doubles hold n * 2^k exactly, so sign extension by two shifts keeps its range.
  const min = a.min * factor;
  const max = a.max * factor;
  const fits = min >= -LIMIT && max < LIMIT && Math.abs(a.min) < EXACT && a.max < EXACT;
  return of(shiftLeft(a.bits, n), fits ? { min, max } : ANY);
}

function shiftedRight(a: Scalar, n: number): Scalar {
  if (n === 0) return a;
  const range = a.min >= 0 ? divided(a, 2 ** n) : ANY;
  return of(shiftRight(a.bits, n), range);
}

function shiftedRightSigned(a: Scalar, n: number): Scalar {
  const bounded = { min: Math.max(a.min, -LIMIT), max: Math.min(a.max, LIMIT) };
  const range = divided(bounded, 2 ** n);
  return of(shiftRightSigned(a.bits, n), n === 0 ? a : range);
}

const divided = (a: Range, by: number): Range => {
  const min = Math.floor(a.min / by);
  const max = Math.floor(a.max / by);
  return { min: min <= -EXACT ? -Infinity : min, max: max >= EXACT ? Infinity : max };
};

const bigintOf = (a: Scalar): bigint => (BigInt(a.bits.vh >>> 0) << 32n) | BigInt(a.bits.vl >>> 0);

function fold(op: AluOp, bits: Bits, a: Scalar, b: Scalar): Scalar {
  if (bits === 32) return constant(ALU32[op](a.bits.vl >>> 0, b.bits.vl >>> 0) | 0, 0);
  const value = BigInt.asUintN(64, ALU64[op](bigintOf(a), bigintOf(b)));
  return constant(Number(BigInt.asIntN(32, value)), Number(BigInt.asIntN(32, value >> 32n)));
}

/** Kernels follow shifts by constants below the width (is_safe_to_compute_dst_reg_range), and no others. */
const isCount = (b: Scalar, bits: Bits): boolean =>
  b.isConstant && b.bits.vh === 0 && b.bits.vl >>> 0 < bits;

function alu64(op: AluOp, a: Scalar, b: Scalar): Scalar {
  switch (op) {
    case "mov":
      return b;
    case "add":
    case "sub":
    case "mul":
      return linear(op, a, b);
    case "and":
    case "or":
    case "xor":
      return bitwise(op, a, b);
    case "lsh":
      return isCount(b, 64) ? shiftedLeft(a, b.bits.vl) : unknown();
    case "rsh":
      return isCount(b, 64) ? shiftedRight(a, b.bits.vl) : unknown();
    case "arsh":
      return isCount(b, 64) ? shiftedRightSigned(a, b.bits.vl) : unknown();
    default:
      // Division and remainder: kernels before 7.0 follow them no further, so no program may rely on it.
      return unknown();
  }
}

/** The low half, zero extended. The same object where that changes nothing. */
export function zeroExtend(a: Scalar): Scalar {
  if (a.bits.vh === 0 && a.bits.mh === 0) return a;
  const bits = new Tnum(a.bits.vl, 0, a.bits.ml, 0);
  return sound(settle(bits, a.umin32, a.umax32, a.umin32, a.umax32, a.smin32, a.smax32));
}

/** The low `from` bits, sign extended to 64. */
export function signExtend(a: Scalar, from: 8 | 16 | 32): Scalar {
  const limit = 2 ** (from - 1);
  if (a.min >= -limit && a.max < limit) return a;
  const bits = shiftRightSigned(shiftLeft(a.bits, 64 - from), 64 - from);
  if (from === 32) return of(bits, signed32(a));
  return of(bits, { min: -limit, max: limit - 1 });
}

/**
 * A move of the low `from` bits, sign extended, as far as kernels follow it (coerce_reg_to_size_sx): constants, and
 * ranges that differ in those bits only and are all of one sign.
 */
export function movedSigned(a: Scalar, from: 8 | 16 | 32, bits: Bits): Scalar {
  const extended = a.isConstant ? signExtend(a, from) : extendedRange(a, from, bits);
  return bits === 64 ? extended : zeroExtend(extended);
}

function extendedRange(a: Scalar, from: 8 | 16 | 32, bits: Bits): Scalar {
  const span = 2 ** from;
  const [min, max] = bits === 64 ? [a.min, a.max] : [a.smin32, a.smax32];
  const above = Math.floor(min / span);
  const sign = (n: number): boolean => n - above * span >= span / 2;
  if (!Number.isFinite(min) || Math.floor(max / span) !== above || sign(min) !== sign(max)) {
    return between(-span / 2, span / 2 - 1);
  }
  const moved = (above + (sign(min) ? 1 : 0)) * span;
  return between(min - moved, max - moved);
}

/** The sign is bit 31. What kernels do not follow is unknown to them as a whole: not even zero extended. */
function shift32(op: "lsh" | "rsh" | "arsh", a: Scalar, b: Scalar): Scalar {
  if (!isCount(b, 32)) return unknown();
  return zeroExtend(alu64(op, op === "arsh" ? signExtend(a, 32) : zeroExtend(a), b));
}

function alu32(op: AluOp, a: Scalar, b: Scalar): Scalar {
  switch (op) {
    case "mov":
      return zeroExtend(b);
    case "lsh":
    case "rsh":
    case "arsh":
      return shift32(op, a, b);
    case "div":
    case "mod":
    case "sdiv":
    case "smod":
      return unknown();
    default:
      return zeroExtend(alu64(op, a, b));
  }
}

const FOLDED: ReadonlySet<AluOp> = new Set<AluOp>(["lsh", "arsh"]);

/** What is known of `a op b`. */
export function compute(op: AluOp, bits: Bits, a: Scalar, b: Scalar): Scalar {
  if (FOLDED.has(op) && a.isConstant && isCount(b, bits)) return fold(op, bits, a, b);
  return bits === 64 ? alu64(op, a, b) : alu32(op, a, b);
}

export function negate(a: Scalar, bits: Bits): Scalar {
  return compute("sub", bits, constant(0, 0), a);
}

/** Byte order: only lengths are known afterwards, and constants are not worth following. */
export function swapped(a: Scalar, to: SwapTo, width: 16 | 32 | 64): Scalar {
  if (width === 64) return to === "le" ? a : unknown();
  const limit = 2 ** width - 1;
  if (to !== "le") return between(0, limit);
  return width === 32 ? zeroExtend(a) : bitwise("and", a, constant(limit, 0));
}

/** A value of `size` bytes from memory. */
export function loaded(size: 1 | 2 | 4 | 8, signed: boolean): Scalar {
  if (size === 8) return unknown();
  const limit = 2 ** (8 * size);
  return signed ? between(-limit / 2, limit / 2 - 1) : between(0, limit - 1);
}

/** The low `size` bytes, zero extended: what a store keeps. */
export function truncated(a: Scalar, size: 1 | 2 | 4 | 8): Scalar {
  if (size === 8) return a;
  if (size === 4) return zeroExtend(a);
  const limit = 2 ** (8 * size) - 1;
  return a.min >= 0 && a.max <= limit
    ? a
    : (narrow(bitwise("and", a, constant(limit, 0)), {}) ?? a);
}

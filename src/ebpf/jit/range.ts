/**
 * Ranges of a register's values: intervals with a step, of unsigned
 * 64-bit values below 2^52 or of all values.
 */
import type { AluOp } from "../opcode.ts";

/** low, low + step, …, high. */
export interface Range {
  readonly low: number;
  /** Infinity if nothing is known. */
  readonly high: number;
  /** 0 for a constant. */
  readonly step: number;
}

// Sums and products of two exact numbers below this are distinct from larger ones.
const MAX = 2 ** 52;
const TWO_32 = 2 ** 32;
export const ANY: Range = { low: 0, high: Infinity, step: 1 };
export const ANY_32: Range = { low: 0, high: TWO_32 - 1, step: 1 };

export function constant(value: number): Range {
  return range(value, value, 0);
}

function range(low: number, high: number, step: number): Range {
  if (!(low >= 0 && high <= MAX)) return ANY;
  if (low === high) return { low, high, step: 0 };
  const by = Math.max(step, 1);
  return { low, high: high - ((high - low) % by), step: by };
}

/** Returns 0..high. */
export function upTo(high: number): Range {
  return range(0, high, 1);
}

/** Returns the low 32 bits. */
export function truncated(a: Range): Range {
  return a.high < TWO_32 ? a : ANY_32;
}

function isConstant(a: Range): boolean {
  return a.low === a.high;
}

function gcd(a: number, b: number): number {
  let [x, y] = [a, b];
  while (y > 0) [x, y] = [y, x % y];
  return x;
}

export function join(a: Range, b: Range): Range {
  if (a === b) return a;
  const step = gcd(gcd(a.step, b.step), Math.abs(a.low - b.low));
  return range(Math.min(a.low, b.low), Math.max(a.high, b.high), step);
}

export function same(a: Range, b: Range): boolean {
  return a.low === b.low && a.high === b.high && a.step === b.step;
}

/** Widens `after`, which includes `before`: sets moved bounds to one of `stops`. */
export function widen(before: Range, after: Range, stops: readonly number[]): Range {
  const low = after.low < before.low ? after.low % Math.max(after.step, 1) : after.low;
  if (after.high <= before.high) return range(low, after.high, after.step);
  const stop = stops.find((s) => s >= after.high);
  return stop === undefined ? ANY : range(low, stop, after.step);
}

/** @param bits of the operation; those of 32 have operands and results of 32 bits */
export function compute(op: AluOp, bits: 32 | 64, a: Range, b: Range): Range {
  const compute64 = COMPUTE[op];
  if (bits === 64) return compute64?.(a, b) ?? ANY;
  const [x, y] = [truncated(a), truncated(b)];
  if (op === "arsh" && x.high >= 2 ** 31) return ANY_32;
  const isShift = op === "lsh" || op === "rsh" || op === "arsh";
  // A count has five significant bits. Other results that fit equal those of 64 bits.
  if (isShift && (!isConstant(y) || y.low >= 32)) return ANY_32;
  return truncated(compute64?.(x, y) ?? ANY);
}

type Compute = (a: Range, b: Range) => Range;

const add: Compute = (a, b) => range(a.low + b.low, a.high + b.high, gcd(a.step, b.step));

const mul: Compute = (a, b) => {
  if (isConstant(b)) return range(a.low * b.low, a.high * b.low, a.step * b.low);
  if (isConstant(a)) return range(a.low * b.low, a.low * b.high, a.low * b.step);
  return range(a.low * b.low, a.high * b.high, 1);
};

/** By a constant above zero. */
const div: Compute = (a, b) => {
  if (!isConstant(b) || b.low === 0) return ANY;
  const even = a.low % b.low === 0 && a.step % b.low === 0;
  const step = even ? a.step / b.low : 1;
  return range(Math.floor(a.low / b.low), Math.floor(a.high / b.low), step);
};

const and: Compute = (a, b) => {
  const [mask, x] = isConstant(a) ? [a, b] : [b, a];
  if (!isConstant(mask)) return upTo(Math.min(a.high, b.high));
  const m = mask.low;
  if (x.high <= m && lowestBit(m + 1) === m + 1) return x;
  return range(0, Math.min(x.high, m), lowestBit(m));
};

function lowestBit(m: number): number {
  let bit = 1;
  while (m > 0 && m % (2 * bit) === 0) bit *= 2;
  return bit;
}

/** Sets all bits up to the highest one of either operand. */
const or: Compute = (a, b) => {
  const most = Math.max(a.high, b.high);
  if (most > MAX) return ANY;
  let beyond = 1;
  while (beyond <= most) beyond *= 2;
  return upTo(beyond - 1);
};

/** Shift counts above 51 leave nothing that is tracked. */
const power = (b: Range): Range => (isConstant(b) && b.low < 52 ? constant(2 ** b.low) : ANY);

const COMPUTE: Readonly<Partial<Record<AluOp, Compute>>> = {
  mov: (_, b) => b,
  add,
  sub: (a, b) => range(a.low - b.high, a.high - b.low, gcd(a.step, b.step)),
  mul,
  div,
  mod: (a, b) => (isConstant(b) && b.low > 0 ? upTo(Math.min(a.high, b.low - 1)) : ANY),
  and,
  or,
  xor: or,
  lsh: (a, b) => mul(a, power(b)),
  rsh: (a, b) => {
    if (a.high <= MAX) return div(a, power(b));
    return isConstant(b) && b.low >= 12 && b.low < 64 ? upTo(2 ** (64 - b.low) - 1) : ANY;
  },
  arsh: (a, b) => (a.high <= MAX ? div(a, power(b)) : ANY),
};

/** An immediate as `bits` unsigned bits. */
export function immediate(imm: number, bits: 32 | 64): Range {
  return bits === 32 ? constant(imm >>> 0) : constant(imm);
}

/** Returns the part of `a` in low..high; undefined if it is empty. */
export function within(a: Range, low: number, high: number): Range | undefined {
  const step = Math.max(a.step, 1);
  const from = low > a.low ? a.low + Math.ceil((low - a.low) / step) * step : a.low;
  const to = Math.min(a.high, high);
  return from > to ? undefined : range(from, to, a.step);
}

/** Returns `a` without one value, which only has effect at an end. */
export function without(a: Range, value: Range): Range | undefined {
  if (!isConstant(value)) return a;
  const step = Math.max(a.step, 1);
  if (a.low === value.low) return within(a, a.low + step, Infinity);
  return a.high === value.low ? within(a, a.low, a.high - step) : a;
}

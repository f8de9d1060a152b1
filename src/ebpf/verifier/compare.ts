/**
 * Refinement by a conditional jump: the operands narrowed to the values for which the comparison
 * holds, or null if it is impossible. Exactly as Linux 6.18 (is_scalar_branch_taken and
 * regs_refine_cond_op in kernel/bpf/verifier.c): a branch that only this verifier knows to be
 * impossible is followed by the kernel, which then refuses what it finds there.
 */
import type { Bits, JumpOp } from "../opcode.ts";
import { EXACT, forgetRanges, isExact, type Known } from "./deduce.ts";
import { constant, Draft, related, type Scalar, unknown } from "./scalar.ts";
import { meetKnownBits, Tnum } from "./tnum.ts";

export interface Operands {
  readonly a: Scalar;
  readonly b: Scalar;
}

/**
 * Returns the operands for which `a op b` holds (or, with `holds` false,
 * does not), or null if that is impossible.
 * @param same both operands are one register
 */
export function assume(
  op: JumpOp,
  bits: Bits,
  holds: boolean,
  a: Scalar,
  b: Scalar,
  same = false,
): Operands | null {
  const outcome = decided(op, bits, a, b);
  if (outcome !== undefined) return outcome === holds ? { a, b } : null;
  if (same) return ofOneRegister(op, holds, a);
  // They differ by a constant: kernels refine the second, then recompute the first from it.
  if (a.related && b.related) return { a, b };
  const first = new Draft(a);
  const second = new Draft(b);
  refine(op, bits, holds, first, second);
  return { a: settled(first, a), b: settled(second, b) };
}

/**
 * Compares a register with itself. Kernels follow `r < r` too, and refine the two ends of its one
 * range against each other. Treating the result as any number is safe.
 */
function ofOneRegister(op: JumpOp, holds: boolean, a: Scalar): Operands {
  const order = op.length === 3 && op !== "set" ? op.slice(1) : op;
  const isStrict = order === "lt" || order === "gt";
  const isOrder = isStrict || order === "le" || order === "ge";
  const value = isOrder && isStrict === holds ? unknown() : a;
  return { a: value, b: value };
}

/** Returns the refined number, linked as `before` was. */
function settled(draft: Draft, before: Scalar): Scalar {
  const narrowed = draft.settled();
  if (before.related && !narrowed.isConstant) return related(narrowed);
  draft.linked = before.linked;
  return narrowed;
}

const isKnown = (bits: Bits, a: Readonly<Known>): boolean =>
  bits === 64 ? a.bits.isConstant : a.bits.ml === 0;

/** The bounds of a view of an operand. */
type Ends = readonly [number, number];
const unsigned = (bits: Bits, a: Readonly<Known>): Ends =>
  bits === 64 ? [a.umin, a.umax] : [a.umin32, a.umax32];
const signed = (bits: Bits, a: Readonly<Known>): Ends =>
  bits === 64 ? [a.min, a.max] : [a.smin32, a.smax32];

/** Returns true or false if the comparison is decided for all operands; undefined otherwise. */
function decided(op: JumpOp, bits: Bits, a: Scalar, b: Scalar): boolean | undefined {
  switch (op) {
    case "eq":
      return differ(bits, a, b);
    case "ne": {
      const equal = differ(bits, a, b);
      return equal === undefined ? undefined : !equal;
    }
    case "set":
      return overlap(bits, a, b);
    case "lt":
    case "le":
    case "gt":
    case "ge":
      return ordered(op, unsigned(bits, a), unsigned(bits, b));
    default:
      return ordered(op.slice(1) as Order, signed(bits, a), signed(bits, b));
  }
}

type Order = "lt" | "le" | "gt" | "ge";

function ordered(op: Order, [a0, a1]: Ends, [b0, b1]: Ends): boolean | undefined {
  switch (op) {
    case "lt":
      return a1 < b0 ? true : a0 >= b1 ? false : undefined;
    case "le":
      return a1 <= b0 ? true : a0 > b1 ? false : undefined;
    case "gt":
      return a0 > b1 ? true : a1 <= b0 ? false : undefined;
    case "ge":
      return a0 >= b1 ? true : a1 < b0 ? false : undefined;
  }
}

const apart = ([a0, a1]: Ends, [b0, b1]: Ends): boolean => a0 > b1 || a1 < b0;

/** Decides inequality: true or false; undefined if unknown. */
function differ(bits: Bits, a: Scalar, b: Scalar): boolean | undefined {
  if (isKnown(bits, a) && isKnown(bits, b)) {
    return a.bits.vl === b.bits.vl && (bits === 32 || a.bits.vh === b.bits.vh);
  }
  const far =
    apart(unsigned(bits, a), unsigned(bits, b)) ||
    apart(signed(bits, a), signed(bits, b)) ||
    (bits === 64 &&
      (apart(unsigned(32, a), unsigned(32, b)) || apart(signed(32, a), signed(32, b))));
  return far ? false : undefined;
}

/** Decides `a & b`, with a constant as one operand. */
function overlap(bits: Bits, a: Scalar, b: Scalar): boolean | undefined {
  const [{ bits: x }, { bits: y }] = isKnown(bits, b) ? [a, b] : [b, a];
  if (!isKnown(bits, isKnown(bits, b) ? b : a)) return undefined;
  const high = bits === 64 ? -1 : 0;
  if (((x.vl & y.vl) | (x.vh & y.vh & high)) !== 0) return true;
  const maybe = ((x.vl | x.ml) & y.vl) | ((x.vh | x.mh) & y.vh & high);
  return maybe === 0 ? false : undefined;
}

const OPPOSITE = { lt: "ge", le: "gt", gt: "le", ge: "lt" } as const;

/** Refines both operands to the values for which the comparison holds, or does not. */
function refine(op: JumpOp, bits: Bits, holds: boolean, a: Draft, b: Draft): void {
  switch (op) {
    case "eq":
    case "ne":
      if ((op === "eq") === holds) equate(bits, a, b);
      else unequal(bits, a, b);
      return;
    case "set":
      if (isKnown(bits, b)) mask(bits, holds, a, b);
      else if (isKnown(bits, a)) mask(bits, holds, b, a);
      return;
    default: {
      const isSigned = op.length === 3;
      const plain = (isSigned ? op.slice(1) : op) as Order;
      const order = holds ? plain : OPPOSITE[plain];
      const [low, high] = order === "lt" || order === "le" ? [a, b] : [b, a];
      inOrder(bits, isSigned, order === "lt" || order === "gt" ? 1 : 0, low, high);
    }
  }
}

/** Integers beyond 2^53 have no exact neighbours among doubles. */
const less = (n: number, by: number): number => (isExact(n) ? n - by : n);
const more = (n: number, by: number): number => (isExact(n) ? n + by : n);

/** Refines for a + gap <= b. */
function inOrder(bits: Bits, isSigned: boolean, gap: number, a: Draft, b: Draft): void {
  if (bits === 64) {
    if (isSigned) {
      a.max = Math.min(a.max, less(b.max, gap));
      b.min = Math.max(b.min, more(a.min, gap));
    } else {
      a.umax = Math.min(a.umax, less(b.umax, gap));
      b.umin = Math.max(b.umin, more(a.umin, gap));
    }
  } else if (isSigned) {
    a.smax32 = Math.min(a.smax32, b.smax32 - gap);
    b.smin32 = Math.max(b.smin32, a.smin32 + gap);
  } else {
    a.umax32 = Math.min(a.umax32, b.umax32 - gap);
    b.umin32 = Math.max(b.umin32, a.umin32 + gap);
  }
}

function equate(bits: Bits, a: Draft, b: Draft): void {
  if (bits === 64) {
    a.umin = b.umin = Math.max(a.umin, b.umin);
    a.umax = b.umax = Math.min(a.umax, b.umax);
    a.min = b.min = Math.max(a.min, b.min);
    a.max = b.max = Math.min(a.max, b.max);
    a.bits = b.bits = meetKnownBits(a.bits, b.bits);
    return;
  }
  a.umin32 = b.umin32 = Math.max(a.umin32, b.umin32);
  a.umax32 = b.umax32 = Math.min(a.umax32, b.umax32);
  a.smin32 = b.smin32 = Math.max(a.smin32, b.smin32);
  a.smax32 = b.smax32 = Math.min(a.smax32, b.smax32);
  const { vl, ml } = meetKnownBits(a.bits, b.bits);
  a.bits = new Tnum(vl, a.bits.vh, ml, a.bits.mh);
  b.bits = new Tnum(vl, b.bits.vh, ml, b.bits.mh);
}

function unequal(bits: Bits, a: Draft, b: Draft): void {
  if (isKnown(bits, b)) without(bits, a, b.bits);
  else if (isKnown(bits, a)) without(bits, b, a.bits);
}

/** Excludes one value from `a`, which only has effect at the end of a range. */
function without(bits: Bits, a: Draft, { vl, vh }: Tnum): void {
  if (bits === 32) {
    if (a.umin32 === vl >>> 0) a.umin32++;
    if (a.umax32 === vl >>> 0) a.umax32--;
    if (a.smin32 === vl) a.smin32++;
    if (a.smax32 === vl) a.smax32--;
    return;
  }
  const { min, umin, umax } = constant(vl, vh);
  if (umax < EXACT) {
    if (a.umin === umin) a.umin++;
    if (a.umax === umin) a.umax--;
  }
  if (!isExact(min)) return;
  if (a.min === min) a.min++;
  if (a.max === min) a.max--;
}

/**
 * Refines for `a & b` with a constant `b`. If it is not zero and `b` has one bit, that bit is set.
 * If it is zero, kernels drop the ranges.
 */
function mask(bits: Bits, holds: boolean, a: Draft, b: Draft): void {
  const low = b.bits.vl;
  const high = bits === 64 ? b.bits.vh : 0;
  const { vl, vh, ml, mh } = a.bits;
  if (!holds) {
    forgetRanges(a);
    a.bits = new Tnum(vl & ~low, vh & ~high, ml & ~low, mh & ~high);
  } else if (low === 0 ? isPower(high) : high === 0 && isPower(low)) {
    a.bits = new Tnum(vl | low, vh | high, ml & ~low, mh & ~high);
  }
}

const isPower = (n: number): boolean => n !== 0 && (n & (n - 1)) === 0;

/** Returns the immediate of an instruction, sign extended to 64 bits. */
export function immediate(imm: number): Scalar {
  return constant(imm, imm >> 31);
}

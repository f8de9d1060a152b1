/**
 * What a conditional jump tells: the operands narrowed to where the comparison holds, or null where it cannot hold.
 * A jump is decided where one of its two outcomes is impossible.
 */
import type { Bits, JumpOp } from "../opcode.ts";
import { constant, contains, narrow, type Scalar, settle } from "./scalar.ts";
import { meetBits, Tnum } from "./tnum.ts";

export interface Operands {
  readonly a: Scalar;
  readonly b: Scalar;
}

/** Operands where `a op b` holds (or, with `holds` false, does not), or null where that is impossible. */
export function assume(
  op: JumpOp,
  bits: Bits,
  holds: boolean,
  a: Scalar,
  b: Scalar,
): Operands | null {
  switch (op) {
    case "eq":
      return holds ? equal(bits, a, b) : unequal(bits, a, b);
    case "ne":
      return holds ? unequal(bits, a, b) : equal(bits, a, b);
    case "set":
      return overlap(bits, holds, a, b);
    case "lt":
    case "slt":
      return holds ? less(op === "slt", bits, 1, a, b) : swap(less(op === "slt", bits, 0, b, a));
    case "le":
    case "sle":
      return holds ? less(op === "sle", bits, 0, a, b) : swap(less(op === "sle", bits, 1, b, a));
    case "gt":
    case "sgt":
      return holds ? swap(less(op === "sgt", bits, 1, b, a)) : less(op === "sgt", bits, 0, a, b);
    case "ge":
    case "sge":
      return holds ? swap(less(op === "sge", bits, 0, b, a)) : less(op === "sge", bits, 1, a, b);
  }
}

const swap = (o: Operands | null): Operands | null => (o === null ? null : { a: o.b, b: o.a });

const both = (a: Scalar | null, b: Scalar | null): Operands | null =>
  a === null || b === null ? null : { a, b };

/** a + gap <= b, where gap is 0 or 1. */
function less(signed: boolean, bits: Bits, gap: number, a: Scalar, b: Scalar): Operands | null {
  if (bits === 32) return signed ? less32Signed(gap, a, b) : less32(gap, a, b);
  // Unsigned order is signed order where both have the same sign.
  if (signed || (a.max < 0 && b.max < 0)) {
    return both(narrow(a, { max: b.max - gap }), narrow(b, { min: a.min + gap }));
  }
  if (b.min >= 0) {
    const from = Math.max(a.min, 0);
    return both(narrow(a, { min: 0, max: b.max - gap }), narrow(b, { min: from + gap }));
  }
  // a >= 2^63: so is b.
  if (a.max < 0) return both(a, narrow(b, { min: a.min + gap, max: -1 }));
  return { a, b };
}

function less32(gap: number, a: Scalar, b: Scalar): Operands | null {
  return both(narrow(a, { umax32: b.umax32 - gap }), narrow(b, { umin32: a.umin32 + gap }));
}

function less32Signed(gap: number, a: Scalar, b: Scalar): Operands | null {
  return both(narrow(a, { smax32: b.smax32 - gap }), narrow(b, { smin32: a.smin32 + gap }));
}

function equal(bits: Bits, a: Scalar, b: Scalar): Operands | null {
  return both(restrictTo(bits, a, b), restrictTo(bits, b, a));
}

function restrictTo(bits: Bits, a: Scalar, b: Scalar): Scalar | null {
  // Counters and their bounds are mostly constants: no need to let views learn from each other.
  if (bits === 64 && a.isConstant && a.min === a.max) return contains(b, a) ? a : null;
  if (bits === 64 && b.isConstant && b.min === b.max) return contains(a, b) ? b : null;
  const known = bits === 64 ? b.bits : new Tnum(b.bits.vl, 0, b.bits.ml, -1);
  const met = meetBits(a.bits, known);
  if (met === null) return null;
  const { umin32, umax32, smin32, smax32 } = b;
  const low = { bits: met, umin32, umax32, smin32, smax32 };
  return narrow(a, bits === 64 ? { ...low, min: b.min, max: b.max } : low);
}

function unequal(bits: Bits, a: Scalar, b: Scalar): Operands | null {
  if (isKnown(bits, b)) return both(without(bits, a, b), b);
  if (isKnown(bits, a)) return both(a, without(bits, b, a));
  return { a, b };
}

const isKnown = (bits: Bits, a: Scalar): boolean => (bits === 64 ? a.isConstant : a.bits.ml === 0);

/** `a` without one value: only a value at an end of a range can be told. */
function without(bits: Bits, a: Scalar, value: Scalar): Scalar | null {
  const u = value.bits.vl >>> 0;
  const s = value.bits.vl;
  if (bits === 32) {
    return narrow(a, {
      umin32: a.umin32 === u ? u + 1 : a.umin32,
      umax32: a.umax32 === u ? u - 1 : a.umax32,
      smin32: a.smin32 === s ? s + 1 : a.smin32,
      smax32: a.smax32 === s ? s - 1 : a.smax32,
    });
  }
  if (a.isConstant) return a.bits.vl === value.bits.vl && a.bits.vh === value.bits.vh ? null : a;
  const n = value.min;
  if (n !== value.max) return a;
  return narrow(a, {
    min: a.min === n ? n + 1 : a.min,
    max: a.max === n ? n - 1 : a.max,
  });
}

/** `a & b` is not zero, or is zero. */
function overlap(bits: Bits, holds: boolean, a: Scalar, b: Scalar): Operands | null {
  const high = bits === 64 ? -1 : 0;
  const { bits: x } = a;
  const { bits: y } = b;
  const surely = ((x.vl & y.vl) | (x.vh & y.vh & high)) !== 0;
  const maybeLow = (x.vl | x.ml) & (y.vl | y.ml);
  const maybeHigh = (x.vh | x.mh) & (y.vh | y.mh) & high;
  if (holds ? (maybeLow | maybeHigh) === 0 : surely) return null;
  if (!isKnown(bits, b)) return { a, b };
  return holds ? withBit(a, b, maybeLow, maybeHigh) : withoutBits(a, b, high);
}

/** Where a single bit is left that can make `a & b` other than zero, it is set. */
function withBit(a: Scalar, b: Scalar, low: number, high: number): Operands | null {
  const single = low === 0 ? isPower(high) : high === 0 && isPower(low);
  if (!single) return { a, b };
  const { vl, vh, ml, mh } = a.bits;
  return both(rebit(a, new Tnum(vl | low, vh | high, ml & ~low, mh & ~high)), b);
}

function withoutBits(a: Scalar, b: Scalar, half: number): Operands | null {
  const { vl, vh, ml, mh } = a.bits;
  const low = b.bits.vl;
  const high = b.bits.vh & half;
  return both(rebit(a, new Tnum(vl, vh, ml & ~low, mh & ~high)), b);
}

const isPower = (n: number): boolean => n !== 0 && (n & (n - 1)) === 0;

function rebit(a: Scalar, bits: Tnum): Scalar | null {
  const { ml, mh } = a.bits;
  if (bits.ml === ml && bits.mh === mh) return a;
  return settle(bits, a.min, a.max, a.umin32, a.umax32, a.smin32, a.smax32);
}

/** The immediate of an instruction: sign extended to 64 bits. */
export function immediate(imm: number): Scalar {
  return constant(imm, imm >> 31);
}

/** Folds single operations when a value is made: constants, identities, strength reduction. */
import { ALU64, JUMP32, JUMP64 } from "../ebpf/arithmetic.ts";
import type { JumpOp } from "../ebpf/opcode.ts";
import type { BinaryOp, Bits, Value } from "./ir.ts";

const mask = (bits: Bits): bigint => (bits === 64 ? 0xffff_ffff_ffff_ffffn : 0xffff_ffffn);

/** Evaluates `a op b` on constants exactly as the instruction does. */
export function evaluate(op: BinaryOp, bits: Bits, a: bigint, b: bigint): bigint {
  if (bits === 64) return BigInt.asUintN(64, ALU64[op](a, b));
  const x = BigInt.asUintN(32, a);
  const y = BigInt.asUintN(32, b);
  if (op === "arsh") return BigInt.asUintN(32, BigInt.asIntN(32, x) >> (y & 31n));
  if (op === "lsh" || op === "rsh") return BigInt.asUintN(32, ALU64[op](x, y & 31n));
  return BigInt.asUintN(32, ALU64[op](x, y));
}

export function compares(op: JumpOp, bits: Bits, a: bigint, b: bigint): boolean {
  if (bits === 64) return JUMP64[op](a, b);
  return JUMP32[op](Number(BigInt.asUintN(32, a)), Number(BigInt.asUintN(32, b)));
}

const COMMUTES: ReadonlySet<BinaryOp> = new Set(["add", "mul", "and", "or", "xor"]);

export function commutes(op: string): boolean {
  return COMMUTES.has(op as BinaryOp);
}

/** Result of folding: an argument, a constant, or another operation. */
export type Folded =
  | { readonly value: Value }
  | { readonly constant: bigint }
  | { readonly op: BinaryOp; readonly a: Value; readonly b: Value | bigint };

const powerOfTwo = (n: bigint): bigint | undefined =>
  n > 0n && (n & (n - 1n)) === 0n ? BigInt(n.toString(2).length - 1) : undefined;

/** Returns the number of bits that can be set: the upper bits are known to be zero. */
export function widthOf(value: Value): number {
  switch (value.op) {
    case "const":
      return value.imm === 0n ? 0 : value.imm.toString(2).length;
    case "load":
      return value.size * 8;
    case "and":
      return Math.min(widthOf(value.args[0]!), widthOf(value.args[1]!));
    case "rsh": {
      const by = value.args[1]!;
      return by.op === "const" ? Math.max(0, widthOf(value.args[0]!) - Number(by.imm)) : value.bits;
    }
    case "atomic":
      return value.size * 8;
    case "or":
    case "xor":
      return Math.max(widthOf(value.args[0]!), widthOf(value.args[1]!));
    case "trunc":
      return Math.min(32, widthOf(value.args[0]!));
    default:
      return value.bits;
  }
}

/**
 * Simplifies `a op b`. A constant is the second operand if the operation commutes.
 * @returns undefined if nothing is simpler
 */
export function fold(op: BinaryOp, bits: Bits, a: Value, b: Value): Folded | undefined {
  if (a.op === "const" && b.op === "const") {
    return { constant: evaluate(op, bits, a.imm, b.imm) };
  }
  if (a.op === "const" && commutes(op)) return fold(op, bits, b, a) ?? { op, a: b, b: a };
  if (b.op === "const") return withConstant(op, bits, a, b.imm);
  if (a === b && bits >= Math.min(widthOf(a), 64)) return withItself(op, a);
  return undefined;
}

function withItself(op: BinaryOp, a: Value): Folded | undefined {
  if (op === "sub" || op === "xor") return { constant: 0n };
  return op === "and" || op === "or" ? { value: a } : undefined;
}

function withConstant(op: BinaryOp, bits: Bits, a: Value, n: bigint): Folded | undefined {
  const fitsWidth = widthOf(a) <= bits;
  switch (op) {
    case "add":
    case "sub":
    case "or":
    case "xor":
      if (n === 0n && fitsWidth) return { value: a };
      break;
    case "lsh":
    case "rsh":
    case "arsh": {
      // Only the low bits of a count apply. Verifiers refuse constants with others.
      const by = n & BigInt(bits - 1);
      if (by === 0n && fitsWidth) return { value: a };
      if (by !== n) return { op, a, b: by };
      break;
    }
    case "mul":
    case "div":
    case "mod":
      return n === 0n && op !== "mul" ? byZero(op, bits, a) : byConstant(op, a, n, fitsWidth);
    case "and":
      if (n === 0n) return { constant: 0n };
      if ((n & widthMask(a)) === widthMask(a)) return { value: a };
      break;
  }
  return regroup(op, bits, a, n);
}

const widthMask = (a: Value): bigint => (1n << BigInt(Math.min(64, widthOf(a)))) - 1n;

/**
 * RFC 9669, section 4.1: division by 0 gives 0, modulo 0 the dividend.
 * Verifiers refuse both with a constant 0.
 */
function byZero(op: "div" | "mod", bits: Bits, a: Value): Folded {
  if (op === "div") return { constant: 0n };
  return widthOf(a) <= bits ? { value: a } : { op: "and", a, b: mask(bits) };
}

function byConstant(
  op: "mul" | "div" | "mod",
  a: Value,
  n: bigint,
  fitsWidth: boolean,
): Folded | undefined {
  if (n === 1n && op === "mod") return { constant: 0n };
  if (n === 1n && fitsWidth) return { value: a };
  if (n === 0n && op === "mul") return { constant: 0n };
  const shift = powerOfTwo(n);
  if (shift === undefined) return undefined;
  if (op === "mod") return { op: "and", a, b: n - 1n };
  return { op: op === "mul" ? "lsh" : "rsh", a, b: shift };
}

/**
 * Regroups (x op m) op n to x op (m op n), and subtraction of
 * constants to addition of their negatives.
 */
function regroup(op: BinaryOp, bits: Bits, a: Value, n: bigint): Folded | undefined {
  if (op === "sub") return { op: "add", a, b: BigInt.asUintN(bits, -n) };
  if (!commutes(op) || a.op !== op || a.bits !== bits) return undefined;
  const [x, m] = a.args;
  if (x === undefined || m?.op !== "const") return undefined;
  return { op, a: x, b: evaluate(op, bits, m.imm, n) & mask(bits) };
}

/** Emits arithmetic, moves, byte swaps and comparisons. */
import type { Instruction } from "../instruction.ts";
import type { AluOp, JumpOp, Operation } from "../opcode.ts";
import type { Code, Op } from "./wasm.ts";

type Of<K extends Operation["kind"]> = Extract<Operation, { kind: K }>;

/** Locals that hold R0..R10. */
export type Registers = readonly number[];

/** Operations with a WebAssembly equivalent, which masks shift counts as RFC 9669 does. */
const PLAIN: Readonly<Partial<Record<AluOp, string>>> = {
  add: "add",
  sub: "sub",
  mul: "mul",
  or: "or",
  and: "and",
  xor: "xor",
  lsh: "shl",
  rsh: "shr_u",
  arsh: "shr_s",
};

const COMPARE: Readonly<Record<Exclude<JumpOp, "set">, string>> = {
  eq: "eq",
  ne: "ne",
  gt: "gt_u",
  ge: "ge_u",
  lt: "lt_u",
  le: "le_u",
  sgt: "gt_s",
  sge: "ge_s",
  slt: "lt_s",
  sle: "le_s",
};

export function emitAlu(code: Code, r: Registers, i: Instruction, operation: Of<"alu">): void {
  const { op, bits } = operation;
  const second = () => operand(code, r, i, operation);
  const first = () => (bits === 64 ? code.get(r[i.dst]!) : code.get(r[i.dst]!).op("i32_wrap_i64"));
  const plain = PLAIN[op];
  if (op === "mov") second();
  else if (plain !== undefined) {
    first();
    second();
    code.op(`i${bits}_${plain}` as Op);
  } else emitDivision(code, operation, first, second);
  if (bits === 32) code.op("i64_extend_i32_u");
  code.set(r[i.dst]!);
}

/** The second operand of arithmetic and comparisons: immediates are sign extended. */
function operand(
  code: Code,
  r: Registers,
  i: Instruction,
  { bits, source }: Pick<Of<"alu">, "bits" | "source">,
): void {
  if (source === "reg") {
    code.get(r[i.src]!);
    if (bits === 32) code.op("i32_wrap_i64");
  } else if (bits === 64) code.i64(BigInt(i.imm));
  else code.i32(i.imm);
}

/**
 * RFC 9669, section 4.1: division by zero gives 0, modulo zero the dividend, and the least integer
 * divided by -1 itself. WebAssembly traps in all these cases except the remainder by -1.
 */
function emitDivision(
  code: Code,
  { op, bits }: Of<"alu">,
  first: () => void,
  second: () => void,
): void {
  const type = bits === 64 ? 0x7e : 0x7f;
  const zero = () => (bits === 64 ? code.i64(0n) : code.i32(0));
  const modulo = op === "mod" || op === "smod";
  second();
  code.op(`i${bits}_eqz`).if(type);
  if (modulo) first();
  else zero();
  code.op("else");
  if (op === "sdiv") {
    second();
    if (bits === 64) code.i64(-1n);
    else code.i32(-1);
    code.op(`i${bits}_eq`).if(type);
    zero();
    first();
    code.op(`i${bits}_sub`, "else");
  }
  first();
  second();
  const signed = op === "sdiv" || op === "smod";
  code.op(`i${bits}_${modulo ? "rem" : "div"}_${signed ? "s" : "u"}` as Op);
  if (op === "sdiv") code.op("end");
  code.op("end");
}

export function emitNeg(code: Code, r: Registers, i: Instruction, { bits }: Of<"neg">): void {
  if (bits === 64) code.i64(0n).get(r[i.dst]!).op("i64_sub");
  else code.i32(0).get(r[i.dst]!).op("i32_wrap_i64", "i32_sub", "i64_extend_i32_u");
  code.set(r[i.dst]!);
}

export function emitMovsx(
  code: Code,
  r: Registers,
  i: Instruction,
  { from, bits }: Of<"movsx">,
): void {
  code.get(r[i.src]!);
  if (bits === 64) code.op(`i64_extend${from}_s`);
  else code.op("i32_wrap_i64", `i32_extend${from as 8 | 16}_s`, "i64_extend_i32_u");
  code.set(r[i.dst]!);
}

/** WebAssembly's memory is little endian, so "le" only truncates. */
export function emitSwap(
  code: Code,
  r: Registers,
  i: Instruction,
  { to, width }: Of<"swap">,
): void {
  const x = r[i.dst]!;
  if (to === "le") {
    if (width < 64)
      code
        .get(x)
        .i64((1n << BigInt(width)) - 1n)
        .op("i64_and")
        .set(x);
    return;
  }
  if (width === 16) {
    code.get(x).i64(8n).op("i64_shr_u").i64(0xffn).op("i64_and");
    code.get(x).i64(0xffn).op("i64_and").i64(8n).op("i64_shl", "i64_or").set(x);
    return;
  }
  if (width === 32) {
    // Each rotation brings two of the four bytes to their place.
    code.get(x).op("i32_wrap_i64").i32(8).op("i32_rotl").i32(0x00ff00ff).op("i32_and");
    code.get(x).op("i32_wrap_i64").i32(24).op("i32_rotl").i32(0xff00ff00).op("i32_and", "i32_or");
    code.op("i64_extend_i32_u").set(x);
    return;
  }
  swapNeighbours(code, x, 8n, 0x00ff00ff00ff00ffn);
  swapNeighbours(code, x, 16n, 0x0000ffff0000ffffn);
  code.get(x).i64(32n).op("i64_rotl").set(x);
}

/** Exchanges adjacent groups of `bits` bits; `mask` selects the lower one of each pair. */
function swapNeighbours(code: Code, x: number, bits: bigint, mask: bigint): void {
  code.get(x).i64(bits).op("i64_shr_u").i64(mask).op("i64_and");
  code.get(x).i64(mask).op("i64_and").i64(bits).op("i64_shl", "i64_or").set(x);
}

/** Pushes 1 if the jump is taken, else 0. */
export function emitCondition(
  code: Code,
  r: Registers,
  i: Instruction,
  operation: Of<"jump">,
): void {
  const { op, bits } = operation;
  code.get(r[i.dst]!);
  if (bits === 32) code.op("i32_wrap_i64");
  operand(code, r, i, operation);
  if (op !== "set") code.op(`i${bits}_${COMPARE[op]}` as Op);
  else if (bits === 64) code.op("i64_and").i64(0n).op("i64_ne");
  else code.op("i32_and").i32(0).op("i32_ne");
}

/**
 * Registers as linear functions of their earlier values, along straight-line code, modulo 2^64. For
 * a loop body this finds the invariants and the induction variables.
 */
import { type Instruction, REGISTERS } from "../instruction.ts";
import type { AluOp, Operation } from "../opcode.ts";
import { fetchesIntoSrc, writesDst } from "../structure.ts";
import { compute, constant, immediate, type Range } from "./range.ts";
import { follow, type Ranges } from "./ranges.ts";

/** The sum of registers, each times a factor other than 0, and a number. */
export interface Linear {
  readonly factors: ReadonlyMap<number, bigint>;
  readonly constant: bigint;
}

/** By register; undefined if it is not such a function. */
export type Sums = (Linear | undefined)[];

const ZERO: Linear = { factors: new Map(), constant: 0n };

export function number(value: bigint): Linear {
  return { factors: ZERO.factors, constant: BigInt.asUintN(64, value) };
}

/** a + b·factor */
export function plus(a: Linear, b: Linear, factor = 1n): Linear {
  const factors = new Map(a.factors);
  for (const [register, by] of b.factors) {
    const sum = BigInt.asUintN(64, (factors.get(register) ?? 0n) + by * factor);
    if (sum === 0n) factors.delete(register);
    else factors.set(register, sum);
  }
  return { factors, constant: BigInt.asUintN(64, a.constant + b.constant * factor) };
}

export function isNumber({ factors }: Linear): boolean {
  return factors.size === 0;
}

function isZero(sum: Linear): boolean {
  return isNumber(sum) && sum.constant === 0n;
}

/** True if two functions differ only in their constants. */
export function parallel(a: Linear, b: Linear): boolean {
  if (a.factors.size !== b.factors.size) return false;
  return [...a.factors].every(([register, by]) => b.factors.get(register) === by);
}

/** Returns each register as itself. */
function themselves(): Sums {
  return Array.from({ length: REGISTERS }, (_, n) => ({
    factors: new Map([[n, 1n]]),
    constant: 0n,
  }));
}

/** Updates the sums after an instruction. @param known ranges of the registers before it */
function followSums(sums: Sums, i: Instruction, known: Ranges): void {
  const { operation } = i.encoding;
  if (operation.kind === "alu") sums[i.dst] = afterAlu(sums, i, operation, known);
  else if (operation.kind === "wide") {
    sums[i.dst] = number((BigInt(i.high >>> 0) << 32n) | BigInt(i.imm >>> 0));
  } else if (writesDst(i)) sums[i.dst] = undefined;
  else if (operation.kind === "call") sums[0] = undefined;
  else if (operation.kind === "atomic") {
    if (operation.op === "cmpxchg") sums[0] = undefined;
    else if (fetchesIntoSrc(i)) sums[i.src] = undefined;
  }
}

function afterAlu(
  sums: Sums,
  i: Instruction,
  { op, bits, source }: Extract<Operation, { kind: "alu" }>,
  known: Ranges,
): Linear | undefined {
  // A 32-bit addition of a negative number equals the 64-bit one if the result is not negative.
  const signed = bits === 64 || op === "add";
  const imm = signed ? i.imm : i.imm >>> 0;
  const [a, b] = [sums[i.dst], source === "reg" ? sums[i.src] : number(BigInt(imm))];
  if (bits === 32) {
    const second = source === "reg" ? known[i.src]! : immediate(i.imm, 32);
    if (!isExact(op, known[i.dst]!, second, source === "imm" ? imm : 0)) return undefined;
  }
  if (op === "mov") return b;
  if (a === undefined || b === undefined) return undefined;
  if (op === "add") return plus(a, b);
  if (op === "sub") return plus(a, b, -1n);
  if (b.factors.size > 0) return undefined;
  if (op === "mul") return plus(ZERO, a, b.constant);
  return op === "lsh" ? plus(ZERO, a, 1n << (b.constant & BigInt(bits - 1))) : undefined;
}

const TWO_32 = 2 ** 32;

/** True if a 32-bit operation equals the 64-bit one, for all values of the registers. */
function isExact(op: AluOp, a: Range, b: Range, imm: number): boolean {
  if (op === "mov") return b.high < TWO_32;
  if (a.high >= TWO_32) return false;
  const result =
    op === "add" && imm < 0 ? compute("sub", 64, a, constant(-imm)) : compute(op, 64, a, b);
  return b.high < TWO_32 && result.high < TWO_32;
}

/**
 * One iteration of a loop with a straight-line body: registers as
 * functions of their values at its start.
 */
export interface Iteration {
  /** Before each instruction, and at the end. */
  readonly before: readonly Sums[];
  readonly ranges: readonly Ranges[];
  /** Each register's stride, if it is constant; 0 for invariants. */
  readonly growth: Sums;
}

/** @param known ranges at the start of any iteration */
export function analyseIteration(instructions: readonly Instruction[], known: Ranges): Iteration {
  const sums = themselves();
  const state = [...known];
  const before: Sums[] = [];
  const ranges: Ranges[] = [];
  for (const i of instructions) {
    before.push([...sums]);
    ranges.push([...state]);
    followSums(sums, i, state);
    follow(state, i);
  }
  before.push([...sums]);
  ranges.push(state);
  const changes = themselves().map((start, n) => {
    const end = sums[n];
    return end === undefined ? undefined : plus(end, start!, -1n);
  });
  const stays = (register: number) => {
    const change = changes[register];
    return change !== undefined && isZero(change);
  };
  const growth = changes.map((change) =>
    change !== undefined && [...change.factors.keys()].every(stays) ? change : undefined,
  );
  return { before, ranges, growth };
}

/** Returns a function's stride; undefined if it is not constant. */
export function growthOf(sum: Linear, growth: Sums): Linear | undefined {
  let total = ZERO;
  for (const [register, by] of sum.factors) {
    const part = growth[register];
    if (part === undefined) return undefined;
    total = plus(total, part, by);
  }
  return total;
}

/** True if a function is invariant. */
export function staysSame(sum: Linear, growth: Sums): boolean {
  const by = growthOf(sum, growth);
  return by !== undefined && isZero(by);
}

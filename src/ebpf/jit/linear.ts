/**
 * What registers hold as sums of what they held before: followed along straight code, modulo 2^64. Of a loop's body
 * that tells which registers stay, and which go on by the same in each round.
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

/** By register; undefined where it is no such sum. */
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

/** Equal but for their numbers. */
export function parallel(a: Linear, b: Linear): boolean {
  if (a.factors.size !== b.factors.size) return false;
  return [...a.factors].every(([register, by]) => b.factors.get(register) === by);
}

/** Each register as itself. */
function themselves(): Sums {
  return Array.from({ length: REGISTERS }, (_, n) => ({
    factors: new Map([[n, 1n]]),
    constant: 0n,
  }));
}

/** What is known behind an instruction. @param known what registers may hold before it */
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
  // Adding a negative number to a low half is the same as to all bits, where it is not below zero then.
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

/** Whether an operation on low halves is the same on all 64 bits, for what the registers may hold. */
function isExact(op: AluOp, a: Range, b: Range, imm: number): boolean {
  if (op === "mov") return b.high < TWO_32;
  if (a.high >= TWO_32) return false;
  const result =
    op === "add" && imm < 0 ? compute("sub", 64, a, constant(-imm)) : compute(op, 64, a, b);
  return b.high < TWO_32 && result.high < TWO_32;
}

/** One round of a loop whose body is straight: what registers hold, as sums of what they held at its start. */
export interface Round {
  /** Before each instruction, and at the end. */
  readonly before: readonly Sums[];
  readonly ranges: readonly Ranges[];
  /** What each register grows by from one round to the next, the same in all rounds: of registers that stay, 0. */
  readonly growth: Sums;
}

/** @param known at the start of any round */
export function analyseRound(instructions: readonly Instruction[], known: Ranges): Round {
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

/** What a sum grows by from one round to the next; undefined where that differs. */
export function growthOf(sum: Linear, growth: Sums): Linear | undefined {
  let total = ZERO;
  for (const [register, by] of sum.factors) {
    const part = growth[register];
    if (part === undefined) return undefined;
    total = plus(total, part, by);
  }
  return total;
}

/** Whether a sum is the same in all rounds. */
export function staysSame(sum: Linear, growth: Sums): boolean {
  const by = growthOf(sum, growth);
  return by !== undefined && isZero(by);
}

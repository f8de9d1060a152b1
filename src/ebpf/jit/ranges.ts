/**
 * Ranges of the registers at the start of each block: an abstract interpretation of the graph to a
 * fixed point, as in P. and R. Cousot, "Abstract interpretation" (POPL 1977). Accesses that are in
 * bounds for all of these values need no test.
 */
import { FRAME_POINTER, type Instruction, REGISTERS, wideValue } from "../instruction.ts";
import type { JumpOp, Operation } from "../opcode.ts";
import { fetchesIntoSrc } from "../structure.ts";
import type { Flow } from "./flow.ts";
import {
  ANY,
  ANY_32,
  compute,
  constant,
  immediate,
  join,
  type Range,
  same,
  upTo,
  widen,
  within,
  without,
} from "./range.ts";

/** By register. */
export type Ranges = Range[];

/** Iterations after which bounds that still change are widened to everything. */
const MAX_ITERATIONS = 12;
/** Limit of instructions followed, for graphs of any form. */
const BUDGET = 200_000;

export function nothingKnown(): Ranges {
  return Array(REGISTERS).fill(ANY);
}

/** @returns by block; undefined if it is unreachable, or the program is too complex */
export function analyseRanges(flow: Flow, entry: Ranges): (Ranges | undefined)[] {
  const at: (Ranges | undefined)[] = flow.blocks.map(() => undefined);
  if (!flow.reducible) return at;
  const stops = stopsOf(flow);
  const visits = new Int32Array(flow.blocks.length);
  let budget = BUDGET;
  at[0] = entry;
  // In reverse postorder, so that a block is followed after its forward predecessors.
  const pending = new Uint8Array(flow.blocks.length);
  pending[0] = 1;
  for (let b = 0; b < pending.length; b++) {
    if (--budget < 0) return flow.blocks.map(() => undefined);
    if (pending[b] === 0) continue;
    pending[b] = 0;
    const { instructions, taken, next } = flow.blocks[b]!;
    budget -= instructions.length;
    const state = [...at[b]!];
    for (const i of instructions) follow(state, i);
    let again = b;
    for (const to of taken === next ? [next] : [taken, next]) {
      if (to < 0) continue;
      const last = instructions.at(-1)!;
      const arriving = taken === next ? state : refined(state, last, to === taken);
      if (arriving === undefined || !merge(to, arriving)) continue;
      pending[to] = 1;
      again = Math.min(again, to - 1);
    }
    b = again;
  }
  return at;

  /** @returns true if the state there has changed */
  function merge(to: number, arriving: Ranges): boolean {
    const before = at[to];
    if (before === undefined) {
      at[to] = arriving;
      return true;
    }
    const moving = flow.isLoop[to] === 1 && ++visits[to]! > 2;
    const after = before.map((range, n) => {
      const both = join(range, arriving[n]!);
      if (!moving || same(range, both)) return both;
      return visits[to]! > MAX_ITERATIONS ? ANY : widen(range, both, stops[n]!);
    });
    if (after.every((range, n) => same(range, before[n]!))) return false;
    at[to] = after;
    return true;
  }
}

/**
 * Returns, per register, the constants that it is compared with and
 * their neighbours: the bounds for widening.
 */
function stopsOf({ blocks }: Flow): number[][] {
  const stops: Set<number>[] = Array.from({ length: REGISTERS }, () => new Set());
  for (const { instructions } of blocks) {
    const { encoding, dst, imm } = instructions.at(-1)!;
    const { operation } = encoding;
    if (operation.kind !== "jump" || operation.source !== "imm") continue;
    const value = operation.bits === 32 ? imm >>> 0 : imm;
    if (value >= 0) for (const n of [value - 1, value, value + 1]) stops[dst]!.add(n);
  }
  return stops.map((set) => [...set].sort((a, b) => a - b));
}

/** Updates ranges after an instruction. */
export function follow(state: Ranges, i: Instruction): void {
  const { operation } = i.encoding;
  switch (operation.kind) {
    case "alu":
      state[i.dst] = afterAlu(state, i, operation);
      return;
    case "neg":
    case "movsx":
      state[i.dst] = operation.bits === 32 ? ANY_32 : ANY;
      return;
    case "swap": {
      const { to, width } = operation;
      const result = width === 64 ? ANY : upTo(2 ** width - 1);
      const unchanged = to === "le" && state[i.dst]!.high <= result.high;
      if (!unchanged) state[i.dst] = result;
      return;
    }
    case "wide":
      state[i.dst] = constant(Number(wideValue(i)));
      return;
    case "load":
      state[i.dst] =
        operation.signed || operation.size === 8 ? ANY : upTo(256 ** operation.size - 1);
      return;
    case "atomic": {
      const old = operation.bits === 32 ? ANY_32 : ANY;
      if (operation.op === "cmpxchg") state[0] = old;
      else if (fetchesIntoSrc(i)) state[i.src] = old;
      return;
    }
    case "call":
      state[0] = ANY;
  }
}

function afterAlu(state: Ranges, i: Instruction, operation: Extract<Operation, { kind: "alu" }>) {
  const { op, bits, source } = operation;
  const a = state[i.dst]!;
  if (source === "reg") return compute(op, bits, a, state[i.src]!);
  if (bits === 64 && i.imm < 0) {
    if (op === "add") return compute("sub", bits, a, constant(-i.imm));
    // The result has only bits of the dividend.
    if (op === "and") return upTo(a.high);
  }
  return compute(op, bits, a, immediate(i.imm, bits));
}

export const NEGATED: Readonly<Partial<Record<JumpOp, JumpOp>>> = {
  eq: "ne",
  ne: "eq",
  gt: "le",
  le: "gt",
  ge: "lt",
  lt: "ge",
  sgt: "sle",
  sle: "sgt",
  sge: "slt",
  slt: "sge",
};
const MIRRORED: Readonly<Partial<Record<JumpOp, JumpOp>>> = {
  eq: "eq",
  ne: "ne",
  gt: "lt",
  lt: "gt",
  ge: "le",
  le: "ge",
};

/**
 * Returns the ranges if the jump at the end of a block is taken, or
 * is not; undefined if that is impossible.
 */
function refined(state: Ranges, i: Instruction, taken: boolean): Ranges | undefined {
  const { operation } = i.encoding;
  if (operation.kind !== "jump") return state;
  const { bits, source } = operation;
  const a = state[i.dst]!;
  const b = source === "reg" ? state[i.src]! : immediate(i.imm, bits);
  const signed = operation.op.startsWith("s") && operation.op !== "set";
  // Signed comparisons of non-negative numbers, and 32-bit ones of
  // short numbers, equal unsigned 64-bit ones.
  const most = Math.max(a.high, b.high);
  if (bits === 32 && most >= (signed ? 2 ** 31 : 2 ** 32)) return state;
  if (signed && most === Infinity) return state;
  const held = taken ? operation.op : NEGATED[operation.op];
  const op = (signed ? held?.slice(1) : held) as JumpOp | undefined;
  if (op === undefined) return state;
  const first = refine(a, op, b);
  if (first === undefined) return undefined;
  const result = [...state];
  result[i.dst] = first;
  const mirrored = MIRRORED[op];
  if (source !== "reg" || i.src === i.dst || mirrored === undefined) return result;
  const second = refine(b, mirrored, a);
  if (second === undefined) return undefined;
  result[i.src] = second;
  return result;
}

/** Returns the values of `a` for which `a op b` can hold. */
function refine(a: Range, op: JumpOp, b: Range): Range | undefined {
  switch (op) {
    case "eq":
      return within(a, b.low, b.high);
    case "ne":
      return without(a, b);
    case "lt":
      return within(a, 0, b.high - 1);
    case "le":
      return within(a, 0, b.high);
    case "gt":
      return within(a, b.low + 1, Infinity);
    case "ge":
      return within(a, b.low, Infinity);
    default:
      return a;
  }
}

/**
 * Returns the ranges at a program's start: all registers are 0,
 * except R10 and those that the caller sets.
 */
export function entryRanges(r10: number, r1: Range, r2: Range): Ranges {
  const entry: Ranges = Array(REGISTERS).fill(constant(0));
  entry[FRAME_POINTER] = constant(r10);
  entry[1] = r1;
  entry[2] = r2;
  return entry;
}

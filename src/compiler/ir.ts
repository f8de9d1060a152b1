/**
 * The intermediate form: SSA. A function consists of blocks of values. One operation on other
 * values makes a value, once. Memory operations keep the order of the source: every field of a
 * layout may be shared with the host, so an access is never merged, split, repeated or moved.
 *
 *     Func ── Block ── Value (phis first) ── args: Value
 *                 └── Terminator: jump | branch on a comparison | return
 */
import type { AtomicOp, JumpOp } from "../ebpf/opcode.ts";

export type Bits = 32 | 64;
export type AccessBytes = 1 | 2 | 4 | 8;

/**
 * Binary arithmetic, wrapping at `bits`. Division by 0 gives 0, modulo 0 the dividend (RFC 9669).
 */
export const BINARY = [
  ...(["add", "sub", "mul", "div", "mod", "and", "or", "xor", "lsh", "rsh", "arsh"] as const),
] as const;
export type BinaryOp = (typeof BINARY)[number];

export type Op =
  | BinaryOp
  /** A constant, `imm` as 64 unsigned bits. */
  | "const"
  /** The context's address: parameter `imm`. */
  | "context"
  /** Integer parameter `imm` of a function that is called. */
  | "param"
  /** The address of stack memory, at `offset` from the frame pointer. */
  | "stack"
  /** The low 32 bits, zero-extended. */
  | "trunc"
  /** Byte swap of the low `size` bytes, unconditionally. */
  | "swap"
  /** An xor that must not be folded: the second half of an address dependency. */
  | "depend"
  /** size bytes at args[0] + offset, zero-extended. */
  | "load"
  /** args[1] to size bytes at args[0] + offset. */
  | "store"
  /**
   * `atomic` on args[0] + offset with args[1]; cmpxchg compares with
   * args[2]. Yields the old value if it fetches.
   */
  | "atomic"
  /** Calls helper number `imm`, or the function `callee`, with args. */
  | "call"
  | "phi";

export interface Value {
  readonly id: number;
  readonly op: Op;
  readonly bits: Bits;
  args: Value[];
  readonly imm: bigint;
  readonly offset: number;
  readonly size: AccessBytes;
  readonly atomic?: AtomicOp | undefined;
  readonly callee?: Func | undefined;
  block: Block;
  /** Position in the concatenation of all files. */
  readonly at: number;
  /** Set if this value was found equal to another one. */
  same?: Value | undefined;
}

export type Terminator =
  | { kind: "jump"; to: Block; at: number }
  | {
      kind: "branch";
      op: JumpOp;
      bits: Bits;
      a: Value;
      b: Value;
      then: Block;
      else: Block;
      at: number;
    }
  | { kind: "return"; value: Value; at: number };

export interface Block {
  readonly id: number;
  values: Value[];
  preds: Block[];
  end?: Terminator;
}

export interface Func {
  readonly name: string;
  /** Position in the concatenation of all files. */
  readonly at: number;
  readonly entry: Block;
  blocks: Block[];
  /** Bytes of stack taken by objects of the source. */
  stack: number;
  nextValue: number;
  nextBlock: number;
}

/** Follows `same` to the value that replaced this one. */
export function resolve(value: Value): Value {
  let v = value;
  while (v.same !== undefined) v = v.same;
  return v;
}

/** True for operations without side effect: equal arguments give equal results. */
export function isPure(value: Value): boolean {
  return !["load", "store", "atomic", "call", "phi"].includes(value.op);
}

export function successors(block: Block): Block[] {
  switch (block.end?.kind) {
    case "jump":
      return [block.end.to];
    case "branch":
      return [block.end.then, block.end.else];
    default:
      return [];
  }
}

/** Returns the values that a terminator reads. */
export function readBy(end: Terminator | undefined): Value[] {
  if (end?.kind === "branch") return [end.a, end.b];
  return end?.kind === "return" ? [end.value] : [];
}

/** Returns the reachable blocks, each before its successors except along back edges. */
export function reversePostorder(func: Func): Block[] {
  const order: Block[] = [];
  const seen = new Set<Block>([func.entry]);
  const stack: [Block, Block[]][] = [[func.entry, successors(func.entry)]];
  for (let top = stack.at(-1); top !== undefined; top = stack.at(-1)) {
    const next = top[1].pop();
    if (next === undefined) order.push(stack.pop()![0]);
    else if (!seen.has(next)) {
      seen.add(next);
      stack.push([next, successors(next)]);
    }
  }
  return order.reverse();
}

/**
 * Strength reduction: if a counter that starts at a constant and grows by one indexes an array, an
 * induction pointer replaces the multiplication.
 *
 *     i = phi(0, i + 1);  p = base + i * size     becomes     p = phi(base, p + size)
 */
import type { Block, Func, Value } from "../ir.ts";
import { type Dominators, dominates, dominators } from "./dominators.ts";

interface Counter {
  readonly phi: Value;
  /** Index of the back edge among the predecessors. */
  readonly back: number;
  readonly start: bigint;
  readonly step: bigint;
  readonly next: Value;
}

export function reduceInduction(func: Func): void {
  const d = dominators(func);
  for (const block of func.blocks) {
    for (const value of [...block.values]) {
      if (value.op !== "phi") break;
      const counter = counterOf(d, value);
      if (counter !== undefined) reduce(func, d, counter);
    }
  }
}

function counterOf(d: Dominators, phi: Value): Counter | undefined {
  if (phi.args.length !== 2) return undefined;
  const back = phi.block.preds.findIndex((pred) => dominates(d, phi.block, pred));
  const next = phi.args[back];
  const start = phi.args[1 - back];
  if (back < 0 || start?.op !== "const" || next?.op !== "add" || next.args[0] !== phi) {
    return undefined;
  }
  const step = next.args[1]!;
  if (step.op !== "const" || step.imm > 0xffffn) return undefined;
  return { phi, back, start: start.imm, step: step.imm, next };
}

/** Matches base + counter * size. */
function walked(value: Value, phi: Value): { base: Value; size: bigint } | undefined {
  if (value.op !== "add" || value.bits !== 64) return undefined;
  for (const [product, base] of [value.args, [...value.args].reverse()] as [Value, Value][]) {
    const by = product.args[1];
    if (product.bits !== 64 || product.args[0] !== phi || by?.op !== "const") continue;
    if (product.op === "mul") return { base, size: by.imm };
    if (product.op === "lsh") return { base, size: 1n << by.imm };
  }
  return undefined;
}

function reduce(func: Func, d: Dominators, counter: Counter): void {
  const { phi } = counter;
  for (const block of func.blocks) {
    for (const value of [...block.values]) {
      if (value.same !== undefined) continue;
      const found = walked(value, phi);
      if (found === undefined || !outside(d, found.base, phi.block)) continue;
      value.same = pointer(func, counter, found.base, found.size);
    }
  }
}

function outside(d: Dominators, value: Value, header: Block): boolean {
  return value.block !== header && dominates(d, value.block, header);
}

function pointer(func: Func, counter: Counter, base: Value, size: bigint): Value {
  const { phi, back, next } = counter;
  const make = (op: Value["op"], args: Value[], imm = 0n, block = phi.block): Value => {
    const rest = { bits: 64, offset: 0, size: 8, at: phi.at } as const;
    return { id: func.nextValue++, op, args, imm, block, ...rest };
  };
  const p = make("phi", []);
  const following = make("add", [p, make("const", [], counter.step * size)], 0n, next.block);
  const enter = phi.block.preds[1 - back]!;
  const first = make("add", [base, make("const", [], counter.start * size)], 0n, enter);
  if (counter.start !== 0n) enter.values.push(first);
  const start = counter.start === 0n ? base : first;
  p.args = back === 0 ? [following, start] : [start, following];
  phi.block.values.unshift(p);
  next.block.values.splice(next.block.values.indexOf(next) + 1, 0, following);
  return p;
}

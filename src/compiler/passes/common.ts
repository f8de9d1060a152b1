/**
 * Common subexpression elimination: a computation replaces an equal one
 * that it dominates. Loads are never merged.
 */
import { commutes } from "../fold.ts";
import { type Block, type Func, isPure, readBy, resolve, type Value } from "../ir.ts";
import { dominators } from "./dominators.ts";

function keyOf(value: Value): string {
  const args = value.args.map((arg) => (arg.op === "const" ? `c${arg.imm}` : `v${arg.id}`));
  if (commutes(value.op)) args.sort();
  return `${value.op} ${value.bits} ${value.imm} ${value.offset} ${value.size} ${args.join(" ")}`;
}

export function shareCommon(func: Func): void {
  const { children } = dominators(func);
  const walk = (block: Block, outer: Map<string, Value>): void => {
    const seen = new Map(outer);
    for (const value of block.values) {
      value.args = value.args.map(resolve);
      if (!isPure(value) || value.op === "const") continue;
      const key = keyOf(value);
      const known = seen.get(key);
      if (known === undefined) seen.set(key, value);
      else value.same = known;
    }
    block.values = block.values.filter((value) => value.same === undefined);
    for (const child of children.get(block)!) walk(child, seen);
  };
  walk(func.entry, new Map());
  for (const block of func.blocks) {
    for (const value of block.values) value.args = value.args.map(resolve);
    const { end } = block;
    if (end?.kind === "return") end.value = resolve(end.value);
    if (end?.kind === "branch") [end.a, end.b] = [resolve(end.a), resolve(end.b)];
  }
}

/** Removes dead values. Loads of shared memory stay: the source requested them. */
export function dropDead(func: Func): void {
  const live = new Set<Value>();
  const work: Value[] = [];
  const mark = (value: Value): void => {
    if (!live.has(value)) work.push(value);
    live.add(value);
  };
  for (const block of func.blocks) {
    for (const value of block.values) if (!isPure(value) && value.op !== "phi") mark(value);
    for (const value of readBy(block.end)) mark(value);
  }
  for (let value = work.pop(); value !== undefined; value = work.pop()) value.args.forEach(mark);
  for (const block of func.blocks) block.values = block.values.filter((v) => live.has(v));
}

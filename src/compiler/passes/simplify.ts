/** Folds again after paths were joined, removes dead branches, and merges consecutive blocks. */
import { simplifyPhi } from "../build.ts";
import { compares, fold } from "../fold.ts";
import {
  BINARY,
  type BinaryOp,
  type Block,
  type Func,
  resolve,
  reversePostorder,
  successors,
  type Value,
} from "../ir.ts";

const IS_BINARY: ReadonlySet<string> = new Set(BINARY);

export function simplify(func: Func): void {
  while (once(func)) {}
}

function once(func: Func): boolean {
  let changed = prune(func);
  for (const block of func.blocks) {
    for (const value of block.values) {
      value.args = value.args.map(resolve);
      if (value.same === undefined && refold(func, value)) changed = true;
    }
    block.values = block.values.flatMap((v) => (v.same === undefined ? [v] : added(v.same, block)));
    if (foldBranch(block)) changed = true;
  }
  if (mergeBlocks(func)) changed = true;
  return changed;
}

/** Replacements made by `refold` are placed at the old value. */
function added(value: Value, block: Block): Value[] {
  return fresh.has(value) && value.block === block && fresh.delete(value) ? [value] : [];
}
const fresh = new WeakSet<Value>();

function refold(func: Func, value: Value): boolean {
  if (value.op === "phi") return simplifyPhi(value) !== value;
  if (value.op === "store") return narrowStore(value);
  if (!IS_BINARY.has(value.op)) return false;
  const op = value.op as BinaryOp;
  const [a, b] = value.args as [Value, Value];
  const simpler = fold(op, value.bits, a, b);
  if (simpler === undefined) return false;
  if ("value" in simpler) value.same = resolve(simpler.value);
  else if ("constant" in simpler) value.same = constant(func, value, simpler.constant);
  else {
    const second = typeof simpler.b === "bigint" ? constant(func, value, simpler.b) : simpler.b;
    if (simpler.op === op && simpler.a === a && second === b) return false;
    const args = [simpler.a, second];
    value.same = { ...value, id: func.nextValue++, op: simpler.op, args };
    fresh.add(value.same);
  }
  return true;
}

function constant(func: Func, like: Value, imm: bigint): Value {
  const { block, at } = like;
  const base = {
    id: func.nextValue++,
    op: "const",
    bits: 64,
    args: [],
    offset: 0,
    size: 8,
  } as const;
  return { ...base, args: [], imm, block, at };
}

/** Removes masks from a stored value, if the store truncates it anyway. */
function narrowStore(store: Value): boolean {
  const value = store.args[1]!;
  const bits = store.size * 8;
  const mask = (1n << BigInt(bits)) - 1n;
  const [x, m] = value.args;
  const masked = value.op === "and" && m?.op === "const" && (m.imm & mask) === mask;
  if (!masked && !(value.op === "trunc" && bits <= 32)) return false;
  store.args = [store.args[0]!, x!];
  return true;
}

function foldBranch(block: Block): boolean {
  const { end } = block;
  if (end?.kind === "return") end.value = resolve(end.value);
  if (end?.kind !== "branch") return false;
  end.a = resolve(end.a);
  end.b = resolve(end.b);
  const { a, b, at } = end;
  if (end.then === end.else) {
    dropPred(end.else, block);
    block.end = { kind: "jump", to: end.then, at };
    return true;
  }
  if (a.op !== "const" || b.op !== "const") return false;
  const taken = compares(end.op, end.bits, a.imm, b.imm);
  const [to, dead] = taken ? [end.then, end.else] : [end.else, end.then];
  dropPred(dead, block);
  block.end = { kind: "jump", to, at };
  return true;
}

/** Removes one edge from `pred`, with the phi arguments of that edge. */
export function dropPred(block: Block, pred: Block): void {
  const index = block.preds.indexOf(pred);
  block.preds.splice(index, 1);
  for (const value of block.values) if (value.op === "phi") value.args.splice(index, 1);
}

function prune(func: Func): boolean {
  const reachable = reversePostorder(func);
  const alive = new Set(reachable);
  const changed = reachable.length < func.blocks.length;
  for (const block of reachable) {
    for (const pred of [...block.preds]) if (!alive.has(pred)) dropPred(block, pred);
  }
  func.blocks = reachable;
  return changed;
}

function mergeBlocks(func: Func): boolean {
  let changed = false;
  for (const block of func.blocks) {
    while (block.end?.kind === "jump") {
      const { to } = block.end;
      if (to.preds.length !== 1 || to === block || to === func.entry) break;
      if (to.values.some((v) => v.op === "phi" && v.same === undefined)) break;
      for (const value of to.values) value.block = block;
      block.values.push(...to.values);
      block.end = to.end as NonNullable<Block["end"]>;
      for (const next of new Set(successors(to))) {
        next.preds = next.preds.map((p) => (p === to ? block : p));
      }
      to.values = [];
      to.preds = [];
      delete to.end;
      changed = true;
    }
  }
  return changed;
}

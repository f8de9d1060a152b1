/**
 * Jump threading: an edge skips a block that only tests a phi, if the phi's argument on that edge
 * decides the test. It removes the cost of booleans of inlined functions: `return
 * takeCompleted(context) ? 1 : 0`.
 */
import { compares } from "../fold.ts";
import { type Block, type Func, readBy, type Value } from "../ir.ts";
import { dropPred } from "./simplify.ts";

export function threadJumps(func: Func): boolean {
  let changed = false;
  for (const block of func.blocks) {
    const { end } = block;
    if (end?.kind !== "branch" || end.b.op !== "const" || end.a.op !== "phi") continue;
    if (end.a.block !== block || !onlyPhis(func, block)) continue;
    for (const pred of [...block.preds]) {
      const arg = end.a.args[block.preds.indexOf(pred)]!;
      if (pred.end?.kind !== "jump" || arg.op !== "const") continue;
      const to = compares(end.op, end.bits, arg.imm, end.b.imm) ? end.then : end.else;
      if (to !== block) redirect(pred, block, to);
      changed ||= to !== block;
    }
  }
  return changed;
}

/** True if the block's phis are read only by its own test and by phis of its successors. */
function onlyPhis(func: Func, block: Block): boolean {
  if (block.values.some((v) => v.op !== "phi" && v.op !== "const")) return false;
  const own = new Set(block.values.filter((v) => v.op === "phi"));
  return func.blocks.every((other) => {
    const fine = (reader: Value): boolean =>
      reader.op === "phi" &&
      reader.block !== block &&
      reader.args.every((arg, i) => !own.has(arg) || other.preds[i] === block);
    return (
      other.values.every((v) => !v.args.some((arg) => own.has(arg)) || fine(v)) &&
      (other === block || !readBy(other.end).some((v) => own.has(v)))
    );
  });
}

function redirect(pred: Block, past: Block, to: Block): void {
  const index = past.preds.indexOf(pred);
  const through = to.preds.indexOf(past);
  for (const phi of to.values) {
    if (phi.op !== "phi") break;
    const arg = phi.args[through]!;
    phi.args.push(arg.op === "phi" && arg.block === past ? arg.args[index]! : arg);
  }
  to.preds.push(pred);
  dropPred(past, pred);
  pred.end = { kind: "jump", to, at: pred.end!.at };
}

/**
 * Replaces a phi's constant argument by a value that is known to equal it on
 * that edge: it is in a register already.
 */
export function reuseKnown(func: Func): void {
  for (const block of func.blocks) {
    for (const phi of block.values) {
      if (phi.op !== "phi") break;
      phi.args = phi.args.map((arg, i) => known(block, block.preds[i]!, arg) ?? arg);
    }
  }
}

function known(block: Block, pred: Block, arg: Value): Value | undefined {
  const { end } = pred;
  if (arg.op !== "const" || end?.kind !== "branch" || end.then === end.else) return undefined;
  const { op, a, b, bits } = end;
  if (b.op !== "const" || b.imm !== arg.imm || bits !== 64 || a.block !== pred) return undefined;
  return block === (op === "eq" ? end.then : op === "ne" ? end.else : undefined) ? a : undefined;
}

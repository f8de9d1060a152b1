/**
 * Shortens tests for zero: instead of a difference or xor without other readers, its operands are
 * compared; "below 1" becomes "is 0", which can absorb a mask.
 */
import type { JumpOp } from "../../ebpf/opcode.ts";
import { widthOf } from "../fold.ts";
import { type Func, readBy, type Terminator, type Value } from "../ir.ts";

type Branch = Extract<Terminator, { kind: "branch" }>;

/** Counters are excluded: verifiers bound loops by their comparison. */
const COMPUTED: ReadonlySet<string> = new Set(["sub", "xor", "and"]);
const BELOW_ONE: Readonly<Partial<Record<JumpOp, JumpOp>>> = { lt: "eq", ge: "ne" };

export function simplifyTests(func: Func): void {
  const uses = countUses(func);
  for (const { end } of func.blocks) {
    if (end?.kind !== "branch" || end.b.op !== "const" || !COMPUTED.has(end.a.op)) continue;
    const zero = BELOW_ONE[end.op];
    if (zero !== undefined && end.b.imm === 1n) {
      end.op = zero;
      end.b = { ...end.b, id: func.nextValue++, imm: 0n };
    }
    if (uses.get(end.a) === 1) compareOperands(end);
  }
}

function compareOperands(end: Branch): void {
  const { op, a, b } = end;
  const zero = b.imm === 0n && (op === "eq" || op === "ne");
  if (!zero || (a.op !== "sub" && a.op !== "xor")) return;
  const [x, y] = a.args as [Value, Value];
  [end.a, end.b] = [x, y];
  // Compares the low halves only, unless whole registers give the same result.
  const low = end.bits === 32 || a.bits === 32;
  end.bits = low && !(isWhole(x) && isWhole(y)) ? 32 : 64;
}

/**
 * True if the upper half is zero. A truncation may be dropped if all its readers use the low half.
 */
function isWhole(value: Value): boolean {
  return widthOf(value) <= 32 && value.op !== "trunc";
}

function countUses(func: Func): Map<Value, number> {
  const uses = new Map<Value, number>();
  const use = (value: Value): void => void uses.set(value, (uses.get(value) ?? 0) + 1);
  for (const { values, end } of func.blocks) {
    for (const value of values) value.args.forEach(use);
    readBy(end).forEach(use);
  }
  return uses;
}

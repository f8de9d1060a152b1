/**
 * Exit conditions that compare an induction variable with an invariant: the number of iterations
 * for which the loop certainly continues.
 */
import type { Instruction } from "../instruction.ts";
import type { JumpOp } from "../opcode.ts";
import { growthOf, type Iteration, type Linear, number, plus, staysSame } from "./linear.ts";
import { immediate, type Range } from "./range.ts";
import { NEGATED } from "./ranges.ts";
import type { Stay } from "./stay.ts";

const TWO_31 = 2 ** 31;
const TWO_32 = 2 ** 32;
const SMALLEST = number(-(2n ** 63n));
const ONE = number(1n);
const minus = (a: Linear, b: Linear): Linear => plus(a, b, -1n);

/**
 * Values from `from` on for which the loop continues, modulo 2^64; `length` is 0 for all 2^64
 * values and for none.
 */
interface Interval {
  readonly from: Linear;
  readonly length: Linear;
}

/** Maps the limit of a comparison to the values for which it holds. */
const HOLDS: Readonly<Partial<Record<JumpOp, (limit: Linear) => Interval>>> = {
  ne: (limit) => ({ from: plus(limit, ONE), length: number(-1n) }),
  lt: (limit) => ({ from: number(0n), length: limit }),
  le: (limit) => ({ from: number(0n), length: plus(limit, ONE) }),
  gt: (limit) => ({ from: plus(limit, ONE), length: minus(number(-1n), limit) }),
  ge: (limit) => ({ from: limit, length: minus(number(0n), limit) }),
  slt: (limit) => ({ from: SMALLEST, length: minus(limit, SMALLEST) }),
  sle: (limit) => ({ from: SMALLEST, length: plus(minus(limit, SMALLEST), ONE) }),
  sgt: (limit) => ({ from: plus(limit, ONE), length: minus(number(2n ** 63n - 1n), limit) }),
  sge: (limit) => ({ from: limit, length: minus(SMALLEST, limit) }),
};

/**
 * @param at the loop's only exit, by its instruction's number in the body
 * @param taken whether the loop continues if the jump is taken
 * @returns the test that it continues; undefined unless it compares an induction variable with an
 * invariant
 */
export function stayInLoop(
  i: Instruction,
  iteration: Iteration,
  at: number,
  taken: boolean,
): Stay | undefined {
  const { operation } = i.encoding;
  if (operation.kind !== "jump") return undefined;
  const { bits, source } = operation;
  const op = taken ? operation.op : NEGATED[operation.op];
  const holds = op && HOLDS[op];
  const [sums, ranges] = [iteration.before[at]!, iteration.ranges[at]!];
  const imm = bits === 64 ? i.imm : i.imm >>> 0;
  const limit = source === "reg" ? sums[i.src] : number(BigInt(imm));
  const value = sums[i.dst];
  if (holds === undefined || limit === undefined || value === undefined) return undefined;
  const second = source === "reg" ? ranges[i.src]! : immediate(i.imm, bits);
  if (bits === 32 && !isWhole(op!, ranges[i.dst]!, second)) return undefined;
  const growth = growthOf(value, iteration.growth);
  if (growth === undefined || !staysSame(limit, iteration.growth)) return undefined;
  const { from, length } = holds(limit);
  return { first: minus(value, from), growth, length };
}

/** True if a 32-bit comparison equals the 64-bit one, for all values of the registers. */
function isWhole(op: JumpOp, a: Range, b: Range): boolean {
  return Math.max(a.high, b.high) < (op.startsWith("s") ? TWO_31 : TWO_32);
}

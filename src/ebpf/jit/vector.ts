/**
 * Loops that do nothing but sum up what lies in memory, one number after the other: two rounds at once, as the halves
 * of a vector. A load of 16 bytes brings the numbers of 2, 4, 8 or 16 rounds, which shifts and masks take apart.
 */
import type { Instruction } from "../instruction.ts";
import type { AccessSize, AluOp, Operation } from "../opcode.ts";
import type { Window } from "./layout.ts";
import {
  growthOf,
  isExact,
  isZero,
  type Linear,
  number,
  plus,
  type Round,
  staysSame,
} from "./linear.ts";
import { immediate } from "./range.ts";
import type { VectorOp } from "./wasm.ts";

/** Rounds in one go: as many for each size, and a loop's own cost matters little then. */
export const VECTOR_ROUNDS = 32;

type Alu = Extract<Operation, { kind: "alu" }>;

/** Operations on both halves, exact in 64 bits. */
const LANES: Readonly<Partial<Record<AluOp, VectorOp>>> = {
  add: "i64x2_add",
  sub: "i64x2_sub",
  and: "v128_and",
  or: "v128_or",
  xor: "v128_xor",
};
const SHIFTS: Readonly<Partial<Record<AluOp, VectorOp>>> = {
  lsh: "i64x2_shl",
  rsh: "i64x2_shr_u",
};
/** Operations whose operands may come in any order: of several partial results one can be made. */
export const SUMS = {
  add: { vector: "i64x2_add", scalar: "i64_add", nothing: 0n },
  xor: { vector: "v128_xor", scalar: "i64_xor", nothing: 0n },
  or: { vector: "v128_or", scalar: "i64_or", nothing: 0n },
  and: { vector: "v128_and", scalar: "i64_and", nothing: -1n },
} as const;
type SumOp = keyof typeof SUMS;

/** A register that each round adds to, in one way only. */
interface Sum {
  readonly register: number;
  readonly op: SumOp;
  readonly bits: 32 | 64;
}

interface Load {
  readonly register: number;
  /** Where the first round's is in the linear memory, modulo 2^32. */
  readonly address: Linear;
}

/** One instruction for two rounds; registers are vectors, and constants by their place in the list. */
export type Step =
  | { readonly kind: "load"; readonly load: number }
  | { readonly kind: "shift"; readonly op: VectorOp; readonly dst: number; readonly by: number }
  | { readonly kind: "alu"; readonly op: VectorOp; readonly dst: number; readonly src: Operand }
  | { readonly kind: "move"; readonly dst: number; readonly src: Operand }
  | { readonly kind: "mask"; readonly dst: number }
  | { readonly kind: "sum"; readonly sum: number; readonly src: Operand };

export type Operand = { readonly register: number } | { readonly constant: number };

/** A loop's body for many rounds. */
export interface VectorLoop {
  readonly size: AccessSize;
  readonly loads: readonly Load[];
  readonly steps: readonly Step[];
  readonly sums: readonly Sum[];
  /** Sums of registers that stay. */
  readonly constants: readonly Linear[];
  /** What each register grows by in a round, where that is always the same and not 0. */
  readonly growth: readonly (readonly [register: number, by: Linear])[];
}

/** Vectors that the code keeps in locals, at most: V8 has 16 registers for them. */
const MAX_LOADS = 2;
const MAX_SUMS = 2;
const MAX_CONSTANTS = 4;

/**
 * @param last number of the round's instruction behind which the loop is left: registers that are not sums must have
 * been written by then, as the rounds behind the last vectors run one by one
 * @param windowOf what a load is surely in, while the loop's bounds hold
 * @returns undefined for all other loops
 */
export function planVectors(
  body: readonly Instruction[],
  round: Round,
  last: number,
  windowOf: (i: Instruction, n: number) => Window | undefined,
): VectorLoop | undefined {
  const planner = new Planner(round, last, windowOf);
  return body.every((i, n) => planner.add(i, n)) ? planner.finish() : undefined;
}

class Planner {
  readonly #round: Round;
  readonly #last: number;
  readonly #windowOf: (i: Instruction, n: number) => Window | undefined;
  /** Registers that hold something of this round. */
  readonly #lanes = new Set<number>();
  readonly #loads: Load[] = [];
  readonly #steps: Step[] = [];
  readonly #sums: Sum[] = [];
  readonly #constants: Linear[] = [];
  #size: AccessSize | undefined;

  constructor(
    round: Round,
    last: number,
    windowOf: (i: Instruction, n: number) => Window | undefined,
  ) {
    this.#round = round;
    this.#last = last;
    this.#windowOf = windowOf;
  }

  /** @returns whether the loop can still be made of vectors */
  add(i: Instruction, n: number): boolean {
    const { operation } = i.encoding;
    switch (operation.kind) {
      case "goto":
      case "jump":
        return true;
      case "load":
        return !operation.signed && this.#load(i, n, operation.size);
      case "alu":
        return this.#alu(i, n, operation);
      default:
        return false;
    }
  }

  finish(): VectorLoop | undefined {
    if (this.#size === undefined || this.#sums.length === 0 || this.#carries()) return undefined;
    const growth = this.#round.growth.flatMap((by, register) =>
      by === undefined || isZero(by) ? [] : [[register, by] as const],
    );
    return {
      size: this.#size,
      loads: this.#loads,
      steps: this.#steps,
      sums: this.#sums,
      constants: this.#constants,
      growth,
    };
  }

  /** Whether a register takes something from round to round that is neither a sum nor goes on by the same. */
  #carries(): boolean {
    const { growth, before } = this.#round;
    return before
      .at(-1)!
      .some(
        (end, register) =>
          growth[register] === undefined &&
          end !== undefined &&
          [...end.factors.keys()].some((from) => growth[from] === undefined),
      );
  }

  /** Numbers in a row, of one size. */
  #load(i: Instruction, n: number, size: AccessSize): boolean {
    const base = this.#round.before[n]![i.src];
    const growth = base && growthOf(base, this.#round.growth);
    const window = this.#windowOf(i, n);
    if (growth === undefined || window === undefined || this.#loads.length === MAX_LOADS) {
      return false;
    }
    const inRow = growth.factors.size === 0 && growth.constant === BigInt(size);
    if (!inRow || (this.#size ?? size) !== size) return false;
    this.#size = size;
    const shift = BigInt(i.offset + window.offset - window.base);
    this.#loads.push({ register: i.dst, address: plus(base!, number(shift)) });
    this.#steps.push({ kind: "load", load: this.#loads.length - 1 });
    return this.#writes(i.dst, n);
  }

  #alu(i: Instruction, n: number, operation: Alu): boolean {
    const { op, bits, source } = operation;
    if (this.#round.before[n + 1]![i.dst] !== undefined) return this.#linear(i.dst, n);
    if (SHIFTS[op] !== undefined) return this.#shift(i, n, operation);
    const imm = number(BigInt(bits === 64 ? i.imm : i.imm >>> 0));
    const src = source === "reg" ? this.#operand(i.src, n) : this.#constant(imm);
    if (src === undefined) return false;
    if (op === "mov") {
      this.#steps.push({ kind: "move", dst: i.dst, src });
      this.#mask(i, n, operation);
      return this.#writes(i.dst, n);
    }
    if (this.#lanes.has(i.dst)) {
      const vector = LANES[op];
      if (vector === undefined) return false;
      this.#steps.push({ kind: "alu", op: vector, dst: i.dst, src });
      this.#mask(i, n, operation);
      return true;
    }
    return isSumOp(op) && this.#sum({ register: i.dst, op, bits }, n, src);
  }

  /** A register that nothing of this round is in now: what reads it looks whether it goes on by the same. */
  #linear(register: number, n: number): boolean {
    this.#lanes.delete(register);
    const remains = n <= this.#last || this.#round.growth[register] !== undefined;
    return remains && !this.#isSum(register);
  }

  #shift(i: Instruction, n: number, operation: Alu): boolean {
    const { op, bits, source } = operation;
    if (source === "reg" || !this.#lanes.has(i.dst)) return false;
    if (op === "rsh" && bits === 32) this.#steps.push({ kind: "mask", dst: i.dst });
    this.#steps.push({ kind: "shift", op: SHIFTS[op]!, dst: i.dst, by: i.imm & (bits - 1) });
    if (op === "lsh") this.#mask(i, n, operation);
    return true;
  }

  /** Clears the high half that an operation on the low ones leaves, where there can be something in it. */
  #mask(i: Instruction, n: number, { op, bits, source }: Alu): void {
    if (bits === 64) return;
    const known = this.#round.ranges[n]!;
    const second = source === "reg" ? known[i.src]! : immediate(i.imm, 32);
    if (isExact(op, known[i.dst]!, second, 0)) return;
    this.#steps.push({ kind: "mask", dst: i.dst });
  }

  /** Only where each round starts with the sum of those before. */
  #sum(sum: Sum, n: number, src: Operand): boolean {
    const { register, op, bits } = sum;
    let at = this.#sums.findIndex((s) => s.register === register);
    if (at < 0) {
      if (!isItself(this.#round.before[n]![register], register)) return false;
      if (this.#sums.length === MAX_SUMS || this.#round.growth[register] !== undefined)
        return false;
      at = this.#sums.push(sum) - 1;
    }
    this.#steps.push({ kind: "sum", sum: at, src });
    return this.#sums[at]!.op === op && this.#sums[at]!.bits === bits;
  }

  /** Of a register that holds something of this round, or the same in all rounds. */
  #operand(register: number, n: number): Operand | undefined {
    if (this.#lanes.has(register)) return { register };
    const sum = this.#round.before[n]![register];
    return sum !== undefined && staysSame(sum, this.#round.growth)
      ? this.#constant(sum)
      : undefined;
  }

  #constant(sum: Linear): Operand | undefined {
    if (this.#constants.length === MAX_CONSTANTS) return undefined;
    return { constant: this.#constants.push(sum) - 1 };
  }

  /** A register that is written before anything reads it. */
  #writes(register: number, n: number): boolean {
    if (this.#isSum(register) || n > this.#last) return false;
    this.#lanes.add(register);
    return true;
  }

  #isSum(register: number): boolean {
    return this.#sums.some((s) => s.register === register);
  }
}

const isSumOp = (op: AluOp): op is SumOp => op in SUMS;

function isItself(sum: Linear | undefined, register: number): boolean {
  return sum?.constant === 0n && sum.factors.size === 1 && sum.factors.get(register) === 1n;
}

/** What is known of a short loop, and what the code for some rounds in a row is made of. */
import type { Instruction } from "../instruction.ts";
import { certainWindow, isCertain } from "./access.ts";
import { stayInLoop } from "./exit.ts";
import type { Flow } from "./flow.ts";
import { findWalks, type Hoisted } from "./hoist.ts";
import type { Guesses, Layout, Window } from "./layout.ts";
import { analyseRound } from "./linear.ts";
import type { Ranges } from "./ranges.ts";
import type { Stay } from "./stay.ts";
import type { ShortLoop } from "./structure.ts";
import { planVectors, type VectorLoop } from "./vector.ts";
import { hasVectors } from "./webassembly.ts";

/** Where the loop is. */
export interface Surroundings {
  readonly layout: Layout;
  /** The function's frame, where it is always at the same address. */
  readonly frame: Window | undefined;
  /** At the start of the body. */
  readonly guesses: Guesses;
  /** What registers may hold at the start of any round. */
  readonly known: Ranges;
}

export interface LoopFacts extends Hoisted {
  /** Instructions of a round. */
  readonly length: number;
  /** What says that the loop is not left; undefined where nothing does. */
  readonly exit: Stay | undefined;
  /** Undefined where it cannot be made of vectors. */
  readonly vectors: VectorLoop | undefined;
}

export function analyseLoop({ blocks }: Flow, loop: ShortLoop, around: Surroundings): LoopFacts {
  const { layout, frame, known, guesses } = around;
  const { instructions, taken } = blocks[loop.head]!;
  const rest = loop.rest < 0 ? [] : blocks[loop.rest]!.instructions;
  const body = [...instructions, ...rest];
  const round = analyseRound(body, known);
  const certain = (i: Instruction, n: number, base: number) =>
    isCertain(layout, frame, i, round.ranges[n]![base]!);
  const { stays, windows } = findWalks(body, round, { layout, frame, guesses, certain });
  const last = instructions.length - 1;
  const exit = stayInLoop(instructions[last]!, round, last, taken !== loop.exit);
  const windowOf = (i: Instruction, n: number) =>
    windows.get(i.index) ?? certainWindow(layout, frame, i, round.ranges[n]![i.src]!);
  const vectors =
    exit !== undefined && hasVectors() ? planVectors(body, round, last, windowOf) : undefined;
  return { stays, windows, length: body.length, exit, vectors };
}

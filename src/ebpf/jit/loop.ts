/** Facts about a loop with a short body. */
import type { Instruction } from "../instruction.ts";
import { isCertain } from "./access.ts";
import { stayInLoop } from "./exit.ts";
import type { Flow } from "./flow.ts";
import { findWalks, type Hoisted } from "./hoist.ts";
import type { Guesses, Layout, Window } from "./layout.ts";
import { analyseIteration, type Iteration } from "./linear.ts";
import type { Ranges } from "./ranges.ts";
import type { Row } from "./row.ts";
import type { Stay } from "./stay.ts";

/** Context of a loop. */
export interface Surroundings {
  readonly layout: Layout;
  /** The function's frame, if it is always at the same address. */
  readonly frame: Window | undefined;
  /** At the start of the body. */
  readonly guesses: Guesses;
  /** Ranges of the registers at the start of any iteration. */
  readonly known: Ranges;
}

export interface LoopFacts extends Hoisted {
  /** The test that the loop continues; undefined if none is known. */
  readonly exit: Stay | undefined;
}

export function analyseLoop({ blocks }: Flow, row: Row, around: Surroundings): LoopFacts {
  const { layout, frame, known, guesses } = around;
  const body = row.blocks.flatMap((b) => blocks[b]!.instructions);
  const iteration = analyseIteration(body, known);
  const certain = (i: Instruction, n: number, base: number) =>
    isCertain(layout, frame, i, iteration.ranges[n]![base]!);
  const { stays, windows } = findWalks(body, iteration, { layout, frame, guesses, certain });
  return { stays, windows, exit: loopExit(blocks, row, iteration) };
}

/** Returns the test that the loop's only exit is not taken; undefined if it has several exits. */
function loopExit(blocks: Flow["blocks"], { blocks: row, exits }: Row, iteration: Iteration) {
  const n = exits.findIndex((exit) => exit >= 0);
  if (exits.some((exit, other) => exit >= 0 && other !== n)) return undefined;
  const before = row.slice(0, n + 1).flatMap((b) => blocks[b]!.instructions);
  const last = before.length - 1;
  const staysWhenTaken = blocks[row[n]!]!.taken !== exits[n];
  return stayInLoop(before[last]!, iteration, last, staysWhenTaken);
}

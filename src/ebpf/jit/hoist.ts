/**
 * Hoists the bounds checks of constant-stride accesses out of a loop: one test for a number of
 * iterations.
 */
import type { Instruction } from "../instruction.ts";
import { admits, plainOf } from "./access.ts";
import type { Guesses, Layout, Window } from "./layout.ts";
import { updateGuesses } from "./layout.ts";
import { growthOf, type Iteration, type Linear, number, parallel, plus } from "./linear.ts";
import type { Stay } from "./stay.ts";

/** Accesses at a fixed distance from each other in every iteration. */
interface Walk {
  readonly window: Window;
  /** Address of the lowest byte in the first iteration. */
  first: Linear;
  /** Bytes from the lowest to the end of the highest. */
  span: number;
  /** The stride: the address's change per iteration. */
  readonly growth: Linear;
}

export interface Hoisted {
  /** The tests that all walks stay in their windows. */
  readonly stays: readonly Stay[];
  /** By slot, the window that holds the access after the test has succeeded. */
  readonly windows: ReadonlyMap<number, Window>;
}

interface Surroundings {
  readonly layout: Layout;
  readonly frame: Window | undefined;
  /** At the start of the body. */
  readonly guesses: Guesses;
  /**
   * Whether an access is in bounds anyway, by its instruction's number in the body and its base
   * register.
   */
  readonly certain: (i: Instruction, n: number, base: number) => boolean;
}

/** Distances that are followed, far below where sums with addresses wrap. */
const MAX_DISTANCE = 2 ** 31;
/** Walks tested for one loop: each is a few instructions. */
export const MAX_WALKS = 4;

/** @param body of the loop, straight */
export function findWalks(
  body: readonly Instruction[],
  iteration: Iteration,
  around: Surroundings,
): Hoisted {
  const { layout, frame } = around;
  const guesses = [...around.guesses];
  const walks: Walk[] = [];
  const windows = new Map<number, Window>();
  body.forEach((i, n) => {
    // Atomics, which must be aligned, are tested each time.
    const access = plainOf(i);
    if (access !== undefined && !around.certain(i, n, access.base)) {
      const guess = guesses[access.base] ?? layout.windows[0];
      const window = guess === layout.stack ? frame : guess;
      const base = iteration.before[n]![access.base];
      const growth = base && growthOf(base, iteration.growth);
      if (growth !== undefined && window !== undefined && admits(window, access)) {
        const first = plus(base!, number(BigInt(access.offset)));
        if (join(walks, { window, first, span: access.size, growth })) windows.set(i.index, window);
      }
    }
    updateGuesses(guesses, i, layout);
  });
  return { stays: walks.map(stayOf), windows };
}

function stayOf({ window, first, span, growth }: Walk): Stay {
  const length = number(BigInt(window.length - span + 1));
  return { first: plus(first, number(BigInt(-window.base))), growth, length };
}

/** Adds an access to the walk that it belongs to. @returns whether it is in one now */
function join(walks: Walk[], access: Walk): boolean {
  for (const walk of walks) {
    if (walk.window !== access.window || !parallel(walk.first, access.first)) continue;
    const distance = Number(BigInt.asIntN(64, access.first.constant - walk.first.constant));
    if (Math.abs(distance) > MAX_DISTANCE) continue;
    const end = Math.max(walk.span, distance + access.span);
    if (distance < 0) walk.first = access.first;
    walk.span = end - Math.min(0, distance);
    return true;
  }
  if (walks.length === MAX_WALKS) return false;
  walks.push(access);
  return true;
}

/** Short ways around a loop, which are worth to be made several times in a row. */
import { dominates, type Flow } from "./flow.ts";

/** Blocks from a loop's head on, one after the other, the last of which leads back to it. */
export interface Row {
  readonly blocks: readonly number[];
  /** Where each of them leads otherwise; -1 for nowhere. */
  readonly exits: readonly number[];
  /** Instructions of all. */
  readonly length: number;
}

/** Instructions, and blocks, of a way that is short. */
const SHORT = 24;
const MAX_BLOCKS = 4;

/** @returns the shortest way back to the head; undefined where there is no short one, and none that is ever left */
export function findRow({ blocks, isLoop, dominator }: Flow, head: number): Row | undefined {
  let best: { path: readonly number[]; length: number } | undefined;
  follow([], head, 0);
  if (best === undefined) return undefined;
  const { path, length } = best as { path: readonly number[]; length: number };
  const exits = path.map((block, n) => {
    const { taken, next } = blocks[block]!;
    const on = path[n + 1] ?? head;
    return taken === on ? (next === on ? -1 : next) : taken;
  });
  return exits.every((exit) => exit < 0) ? undefined : { blocks: path, exits, length };

  function follow(before: readonly number[], block: number, lengthBefore: number): void {
    const path = [...before, block];
    const { instructions, taken, next } = blocks[block]!;
    const length = lengthBefore + instructions.length;
    if (length > Math.min(SHORT, (best?.length ?? Infinity) - 1)) return;
    for (const to of [taken, next]) {
      if (to === head) best = { path, length };
      else if (to > block && isInside(to) && path.length < MAX_BLOCKS) follow(path, to, length);
    }
  }

  function isInside(block: number): boolean {
    return isLoop[block] === 0 && dominates(dominator, head, block);
  }
}

/** Short loop bodies, which are worth unrolling. */
import { dominates, type Flow } from "./flow.ts";

/** Blocks from a loop's header on, one after the other; the last one has the back edge. */
export interface Row {
  readonly blocks: readonly number[];
  /** By block, where its other edge leads; -1: it has none. */
  readonly exits: readonly number[];
  /** Instructions of all. */
  readonly length: number;
}

/** Most instructions and blocks of a short body. */
const SHORT = 24;
const MAX_BLOCKS = 4;

/** @returns the shortest path to a back edge; undefined if none is short or none has an exit */
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

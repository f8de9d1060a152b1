/** Liveness: registers whose value is read later. */
import {
  type MachineBlock,
  type MachineFunction,
  readsOf,
  successorsOf,
  writesOf,
} from "./code.ts";

/** Registers live at the end of each block. */
export type LiveOut = ReadonlyMap<MachineBlock, ReadonlySet<number>>;

export function liveOut(func: MachineFunction): LiveOut {
  const live = new Map<MachineBlock, Set<number>>(func.blocks.map((b) => [b, new Set()]));
  const into = new Map<MachineBlock, ReadonlySet<number>>();
  for (let changed = true; changed; ) {
    changed = false;
    for (const block of [...func.blocks].reverse()) {
      const out = live.get(block)!;
      for (const next of successorsOf(block)) for (const r of into.get(next) ?? []) out.add(r);
      const before = liveIn(block, out);
      if (before.size !== into.get(block)?.size) {
        into.set(block, before);
        changed = true;
      }
    }
  }
  return live;
}

function liveIn(block: MachineBlock, out: ReadonlySet<number>): ReadonlySet<number> {
  const live = new Set(out);
  backwards(block, live, () => {});
  return live;
}

/**
 * Walks a block backwards. `live` is the set that is live after the instruction passed to `visit`.
 */
export function backwards(
  block: MachineBlock,
  live: Set<number>,
  visit: (instruction: MachineBlock["code"][number], live: Set<number>) => void,
): void {
  const all = block.jump === undefined ? block.code : [...block.code, block.jump];
  for (let i = all.length - 1; i >= 0; i--) {
    const instruction = all[i]!;
    visit(instruction, live);
    for (const r of writesOf(instruction)) live.delete(r);
    for (const r of readsOf(instruction)) live.add(r);
  }
}

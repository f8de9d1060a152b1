/**
 * The control-flow graph of one function: basic blocks in
 * reverse postorder, dominators, reducibility.
 */
import { type Instruction, targetOf } from "../instruction.ts";
import { endsFlow } from "../structure.ts";

export interface Block {
  /** Straight-line code; only the last instruction may jump. Never empty. */
  readonly instructions: readonly Instruction[];
  /** Target of the jump at its end, in reverse postorder; -1 for none. */
  taken: number;
  /** The other successor; -1 for none. */
  next: number;
}

/** Reachable blocks, numbered in reverse postorder: block 0 is the entry. */
export interface Flow {
  readonly blocks: readonly Block[];
  /** Immediate dominator of each; the entry's is itself. */
  readonly dominator: Int32Array;
  /** Loop headers: targets of an edge from a later or the same block. */
  readonly isLoop: Uint8Array;
  /** Blocks with two or more edges from earlier ones. */
  readonly isMerge: Uint8Array;
  /** True if each loop is entered only through its header. */
  readonly reducible: boolean;
  /** Longest chain of dominators. */
  readonly depth: number;
}

/** @param entry slot of the function's first instruction */
export function analyseFlow(program: readonly Instruction[], entry: number): Flow {
  const blocks = inReversePostorder(splitBlocks(program), entry);
  const isLoop = new Uint8Array(blocks.length);
  const isMerge = new Uint8Array(blocks.length);
  const incoming: number[][] = blocks.map(() => []);
  blocks.forEach((block, from) => {
    for (const to of successors(block)) {
      if (to <= from) isLoop[to] = 1;
      else if (incoming[to]!.some((other) => other < to)) isMerge[to] = 1;
      incoming[to]!.push(from);
    }
  });
  const dominator = dominators(incoming);
  const reducible = incoming.every((edges, to) =>
    edges.every((from) => from < to || dominates(dominator, to, from)),
  );
  const depths = new Int32Array(blocks.length);
  for (let b = 1; b < blocks.length; b++) depths[b] = depths[dominator[b]!]! + 1;
  const depth = depths.reduce((a, b) => Math.max(a, b), 0);
  return { blocks, dominator, isLoop, isMerge, reducible, depth };
}

function successors({ taken, next }: Block): number[] {
  return [taken, next].filter((b, i, all) => b >= 0 && all.indexOf(b) === i);
}

/** Blocks by the slot of their first instruction; `taken` and `next` still are slots. */
function splitBlocks(program: readonly Instruction[]): Map<number, Block> {
  const leaders = new Set<number>();
  let afterJump = true;
  for (const instruction of program) {
    if (afterJump) leaders.add(instruction.index);
    const { kind } = instruction.encoding.operation;
    const target = targetOf(instruction);
    if (target !== undefined) leaders.add(target);
    afterJump = kind === "jump" || endsFlow(instruction);
  }
  const blocks = new Map<number, Block>();
  for (let start = 0, end = 0; start < program.length; start = end) {
    end = start + 1;
    while (end < program.length && !leaders.has(program[end]!.index)) end++;
    const last = program[end - 1]!;
    const jumps = last.encoding.operation.kind !== "call" ? targetOf(last) : undefined;
    blocks.set(program[start]!.index, {
      instructions: program.slice(start, end),
      taken: jumps ?? -1,
      next: endsFlow(last) ? -1 : program[end]!.index,
    });
  }
  return blocks;
}

function inReversePostorder(bySlot: ReadonlyMap<number, Block>, entry: number): Block[] {
  const postorder: number[] = [];
  const seen = new Set([entry]);
  // An explicit stack: 16384 consecutive blocks would overflow the machine's.
  const stack = [{ slot: entry, rest: successors(bySlot.get(entry)!) }];
  for (let top = stack.at(-1); top !== undefined; top = stack.at(-1)) {
    const slot = top.rest.pop();
    if (slot === undefined) {
      postorder.push(top.slot);
      stack.pop();
    } else if (!seen.has(slot)) {
      seen.add(slot);
      stack.push({ slot, rest: successors(bySlot.get(slot)!) });
    }
  }
  const order = postorder.reverse();
  const numbers = new Map(order.map((slot, number) => [slot, number]));
  const renumber = (slot: number): number => (slot < 0 ? -1 : numbers.get(slot)!);
  return order.map((slot) => {
    const { instructions, taken, next } = bySlot.get(slot)!;
    return { instructions, taken: renumber(taken), next: renumber(next) };
  });
}

/**
 * Cooper, Harvey and Kennedy, "A Simple, Fast Dominance Algorithm", on nodes in reverse postorder.
 */
function dominators(incoming: readonly (readonly number[])[]): Int32Array {
  const dominator = new Int32Array(incoming.length).fill(-1);
  dominator[0] = 0;
  for (let changed = true; changed; ) {
    changed = false;
    for (let b = 1; b < incoming.length; b++) {
      let common = -1;
      for (const from of incoming[b]!) {
        if (dominator[from] === -1) continue;
        common = common === -1 ? from : meet(dominator, common, from);
      }
      if (dominator[b] !== common) {
        dominator[b] = common;
        changed = true;
      }
    }
  }
  return dominator;
}

function meet(dominator: Int32Array, a: number, b: number): number {
  let x = a;
  let y = b;
  while (x !== y) {
    while (x > y) x = dominator[x]!;
    while (y > x) y = dominator[y]!;
  }
  return x;
}

export function dominates(dominator: Int32Array, above: number, below: number): boolean {
  let at = below;
  while (at > above) at = dominator[at]!;
  return at === above;
}

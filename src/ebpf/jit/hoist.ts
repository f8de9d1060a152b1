/**
 * Bounds of accesses whose address goes on by the same in each round of a loop: tested once for some rounds, as the
 * first and the last of them lie on both sides of the others.
 */
import type { Instruction } from "../instruction.ts";
import type { Registers } from "./arithmetic.ts";
import type { Guesses, Layout, Window } from "./layout.ts";
import { updateGuesses } from "./layout.ts";
import { analyseRound, growthOf, type Linear, number, parallel, plus } from "./linear.ts";
import type { Range } from "./range.ts";
import type { Ranges } from "./ranges.ts";
import type { Code } from "./wasm.ts";

/** Accesses that lie at a fixed distance from each other in every round. */
export interface Walk {
  readonly window: Window;
  /** Address of the lowest byte in the first round. */
  first: Linear;
  /** Bytes from the lowest to behind the highest. */
  span: number;
  /** What the address grows by from round to round. */
  readonly growth: Linear;
}

export interface Hoisted {
  readonly walks: readonly Walk[];
  /** By slot, the window that holds the access once the test has said so. */
  readonly windows: ReadonlyMap<number, Window>;
}

/** Where the loop is. */
export interface Surroundings {
  readonly layout: Layout;
  /** The function's frame, where it is always at the same address. */
  readonly frame: Window | undefined;
  /** At the start of the body. */
  readonly guesses: Guesses;
  /** What registers may hold at the start of any round. */
  readonly known: Ranges;
  /** Whether an access is in bounds anyway, for what its base register may hold. */
  readonly certain: (i: Instruction, base: Range) => boolean;
}

/** Distances that are followed, far below where sums with addresses wrap. */
const MAX_DISTANCE = 2 ** 31;
/** Walks tested for one loop: each is a few instructions. */
export const MAX_WALKS = 4;

/** @param body of the loop, straight */
export function findWalks(body: readonly Instruction[], around: Surroundings): Hoisted {
  const { layout, frame } = around;
  const round = analyseRound(body, around.known);
  const guesses = [...around.guesses];
  const walks: Walk[] = [];
  const windows = new Map<number, Window>();
  body.forEach((i, n) => {
    const access = accessOf(i);
    if (access !== undefined && !around.certain(i, round.ranges[n]![access.base]!)) {
      const guess = guesses[access.base] ?? layout.windows[0];
      const window = guess === layout.stack ? frame : guess;
      const base = round.before[n]![access.base];
      const growth = base && growthOf(base, round.growth);
      if (growth !== undefined && window !== undefined && admits(window, access)) {
        const first = plus(base!, number(BigInt(i.offset)));
        if (join(walks, { window, first, span: access.size, growth })) windows.set(i.index, window);
      }
    }
    updateGuesses(guesses, i, layout);
  });
  return { walks, windows };
}

interface Plain {
  readonly base: number;
  readonly size: number;
  readonly writes: boolean;
}

/** Loads and stores; atomics, which must be aligned, are tested each time. */
function accessOf(i: Instruction): Plain | undefined {
  const { operation } = i.encoding;
  if (operation.kind === "load") return { base: i.src, size: operation.size, writes: false };
  if (operation.kind !== "store") return undefined;
  return { base: i.dst, size: operation.size, writes: true };
}

function admits({ writable, length }: Window, { size, writes }: Plain): boolean {
  return length >= size && (writable || !writes);
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

/** A walk, and where its lowest byte must lie in the first of some rounds, from the window's start on. */
interface Room {
  readonly walk: Walk;
  /** The end of that, where the address grows by a constant, and otherwise where it does not grow. */
  readonly end: number;
  /** Bytes from round to round; undefined where only the run tells. */
  readonly step: number | undefined;
}

function roomOf(walk: Walk, rounds: number): Room | undefined {
  const { window, span, growth } = walk;
  const fixed = growth.factors.size === 0;
  const step = fixed ? Number(BigInt.asIntN(64, growth.constant)) : undefined;
  const end = window.length - span + 1 - Math.abs(step ?? 0) * (rounds - 1);
  return end <= 0 ? undefined : { walk, end, step };
}

/**
 * In front of a loop: computes what the test needs of registers that stay.
 * @param limits i64 locals, one per walk
 * @returns what leaves 1 on the stack where all walks stay in their windows for so many rounds; undefined, and nothing
 * is made, where one never does
 */
export function emitLimits(
  code: Code,
  registers: Registers,
  walks: readonly Walk[],
  rounds: number,
  limits: readonly number[],
): (() => void) | undefined {
  const rooms = walks.map((walk) => roomOf(walk, rounds));
  if (rooms.length === 0 || rooms.includes(undefined)) return undefined;
  rooms.forEach((room, n) => {
    if (room!.step === undefined) emitLimit(code, registers, room!, rounds, limits[n]!);
  });
  return () => {
    rooms.forEach((room, n) => {
      emitStays(code, registers, room!, rounds, limits[n]!);
      if (n > 0) code.op("i32_and");
    });
  };
}

/** The end of the room, 0 where a step is so long that it may lie below that. */
function emitLimit(
  code: Code,
  registers: Registers,
  { walk, end }: Room,
  rounds: number,
  limit: number,
): void {
  const { growth } = walk;
  code.i64(BigInt(end));
  emitSum(code, registers, plus(number(0n), growth, BigInt(rounds - 1)));
  code.op("i64_sub").i64(0n);
  emitSum(code, registers, growth);
  code.i64(BigInt(Math.floor(end / (rounds - 1)))).op("i64_le_u", "select");
  code.set(limit);
}

function emitStays(
  code: Code,
  registers: Registers,
  { walk, end, step }: Room,
  rounds: number,
  limit: number,
): void {
  // Of addresses that go down, the last one is the lowest.
  const down = step !== undefined && step < 0 ? step * (rounds - 1) : 0;
  emitSum(code, registers, plus(walk.first, number(BigInt(down - walk.window.base))));
  if (step === undefined) code.get(limit);
  else code.i64(BigInt(end));
  code.op("i64_lt_u");
}

/** Leaves the sum on the stack. */
export function emitSum(code: Code, registers: Registers, { factors, constant }: Linear): void {
  let empty = true;
  for (const [register, by] of factors) {
    code.get(registers[register]!);
    if (by !== 1n) code.i64(by).op("i64_mul");
    if (!empty) code.op("i64_add");
    empty = false;
  }
  if (empty) code.i64(constant);
  else if (constant !== 0n) code.i64(constant).op("i64_add");
}

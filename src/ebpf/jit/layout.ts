/** Places a program's regions in the linear memory, and guesses the region of an address. */

import { EbpfError } from "../errors.ts";
import type { Instruction } from "../instruction.ts";
import { FRAME_POINTER, REGISTERS, wideValue } from "../instruction.ts";
import type { Region } from "../memory.ts";
import { STACK_BASE, STACK_SIZE, STACK_TOP } from "../runner.ts";
import { writesDst } from "../structure.ts";
import { type LinearMemory, STACK_OFFSET } from "./linear-memory.ts";

/** A region in the linear memory. */
export interface Window {
  /** Program's address of its first byte. */
  readonly base: number;
  readonly length: number;
  /** Offset of that byte in the linear memory. */
  readonly offset: number;
  readonly writable: boolean;
}

export interface Layout {
  readonly windows: readonly Window[];
  readonly stack: Window;
}

/** @throws EbpfError UNSUPPORTED if a region lies elsewhere */
export function layOut(regions: readonly Region[], memory: LinearMemory): Layout {
  const windows = regions.map(({ name, base, bytes, writable }) => {
    if (bytes.buffer !== memory.buffer) {
      const hint = "allocate them with LinearMemory";
      throw new EbpfError(
        "UNSUPPORTED",
        `the bytes of ${name} are not in the linear memory: ${hint}`,
      );
    }
    return { base, length: bytes.length, offset: bytes.byteOffset, writable: writable ?? true };
  });
  const length = STACK_TOP - STACK_BASE;
  return { windows, stack: { base: STACK_BASE, length, offset: STACK_OFFSET, writable: true } };
}

/** For each register the region that it probably points into; undefined if nothing is known. */
export type Guesses = (Window | undefined)[];

/**
 * Guesses at a function's entry. They select the region that is tested first, and do not affect
 * results: a wrong one costs a few comparisons.
 */
export function entryGuesses({ windows, stack }: Layout): Guesses {
  const guesses: Guesses = Array.from({ length: REGISTERS }, () => undefined);
  guesses[1] = windows[0];
  guesses[FRAME_POINTER] = stack;
  return guesses;
}

/**
 * Updates guesses after an instruction: copies and sums point into the region of their operands.
 */
export function updateGuesses(guesses: Guesses, i: Instruction, layout: Layout): void {
  const { operation } = i.encoding;
  if (operation.kind === "call") guesses[0] = undefined;
  if (!writesDst(i)) return;
  if (operation.kind === "alu" && operation.bits === 64) {
    const { op, source } = operation;
    const other = source === "reg" ? guesses[i.src] : undefined;
    if (op === "mov") guesses[i.dst] = other;
    else if (op === "add") guesses[i.dst] = guesses[i.dst] ?? other;
    else if (op !== "sub" && op !== "and" && op !== "or") guesses[i.dst] = undefined;
  } else if (operation.kind === "wide") {
    guesses[i.dst] = windowOf(Number(wideValue(i)), layout);
  } else guesses[i.dst] = undefined;
}

function windowOf(address: number, { windows, stack }: Layout): Window | undefined {
  return [...windows, stack].find((w) => address >= w.base && address < w.base + w.length);
}

/**
 * Returns the bytes of its frame that the function may access:
 * all if its address is stored or passed on.
 */
export function frameBytes(instructions: readonly Instruction[]): number {
  let bytes = 0;
  for (const i of instructions) {
    const { kind } = i.encoding.operation;
    const uses = i.encoding.uses;
    const address = kind === "load" ? i.src : i.dst;
    const direct = kind === "load" || kind === "store" || kind === "atomic";
    if (uses.includes("src") && i.src === FRAME_POINTER && kind !== "load") return STACK_SIZE;
    if (uses.includes("dst") && i.dst === FRAME_POINTER && !direct) return STACK_SIZE;
    if (direct && address === FRAME_POINTER) bytes = Math.max(bytes, -i.offset);
  }
  return Math.min(STACK_SIZE, Math.ceil(bytes / 8) * 8);
}

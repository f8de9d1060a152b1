/** The runners for programs of the suite, with the same memory and the same helpers. */

import { EbpfError } from "../errors.ts";
import { LinearMemory } from "../jit/linear-memory.ts";
import type { Helper } from "../runner.ts";
import { createRunner, type RunnerName } from "../runners.ts";

/** The program's address of a case's memory. */
export const MEMORY_BASE = 0x1000_0000;

/** The suite's helper `unwind`: returns its argument, and ends the program if that is 0. */
const UNWIND = 5;
const HELPERS: ReadonlyMap<number, Helper> = new Map([[UNWIND, (r1: bigint) => r1]]);
const unwinds = (helper: number, result: bigint): boolean => helper === UNWIND && result === 0n;

/**
 * Runs `code` once on `memory`: R1 is its address and R2 its length, both 0 if it is empty.
 * @returns R0, 64 unsigned bits
 * @throws EbpfError if the program is refused or fails
 */
export type RunProgram = (code: Uint8Array, memory: Uint8Array) => bigint;

export const RUNNERS: Readonly<Record<RunnerName, RunProgram>> = {
  interpreter: (code, memory) => run("interpreter", code, memory),
  jit: (code, memory) => run("jit", code, memory),
};

function run(engine: RunnerName, code: Uint8Array, memory: Uint8Array): bigint {
  const linear = new LinearMemory(memory.length + 8);
  const bytes = linear.allocate(memory.length);
  bytes.set(memory);
  const regions = memory.length === 0 ? [] : [{ name: "memory", base: MEMORY_BASE, bytes }];
  const machine = createRunner(engine, code, {
    regions,
    helpers: HELPERS,
    unwinds,
    memory: linear,
  });
  const r0 =
    memory.length === 0 ? machine.run() : machine.run(BigInt(MEMORY_BASE), BigInt(memory.length));
  return BigInt.asUintN(64, r0);
}

/** Runs a program and returns its result, refusal or failure. Throws other errors. */
export function outcome(
  run: RunProgram,
  code: Uint8Array,
  memory: Uint8Array,
): { r0: bigint } | { refused: string } {
  try {
    return { r0: run(code, memory) };
  } catch (error) {
    if (error instanceof EbpfError) return { refused: error.message };
    throw error;
  }
}

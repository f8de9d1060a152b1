/** The engines that programs of the suite run on: the same memory, the same helpers. */
import { EbpfError } from "../errors.ts";
import { type Helper, Interpreter } from "../interpreter.ts";

/** Where the memory of a case begins, as the program sees it. */
export const MEMORY_BASE = 0x1000_0000;

/** The suite's helper `unwind`: gives its argument back, and ends the program where that is 0. */
const UNWIND = 5;
const HELPERS: ReadonlyMap<number, Helper> = new Map([[UNWIND, (r1: bigint) => r1]]);
const unwinds = (helper: number, result: bigint): boolean => helper === UNWIND && result === 0n;

/**
 * Runs `code` once on `memory`: R1 is its address and R2 its length, both 0 where it is empty.
 * @returns R0, 64 unsigned bits
 * @throws EbpfError where the program is refused or fails
 */
export type RunProgram = (code: Uint8Array, memory: Uint8Array) => bigint;

export const ENGINES = {
  interpreter: runInterpreter,
} satisfies Readonly<Record<string, RunProgram>>;
export type EngineName = keyof typeof ENGINES;

function runInterpreter(code: Uint8Array, memory: Uint8Array): bigint {
  const regions = memory.length === 0 ? [] : [{ name: "memory", base: MEMORY_BASE, bytes: memory }];
  const machine = new Interpreter(code, { regions, helpers: HELPERS, unwinds });
  const r0 =
    memory.length === 0 ? machine.run() : machine.run(BigInt(MEMORY_BASE), BigInt(memory.length));
  return BigInt.asUintN(64, r0);
}

/** Runs a program; a refusal or failure is a value here. Other errors are thrown. */
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

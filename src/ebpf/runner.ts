/**
 * Runners of programs: the reference interpreter, and the
 * compiler to WebAssembly. One suite tests both.
 */
import type { Region } from "./memory.ts";

/** Stack of each function in bytes. */
export const STACK_SIZE = 512;
/** Limit of nested functions in one run, including the first (the kernel's limit). */
export const MAX_FRAMES = 8;
/** The program's address of the stack. */
export const STACK_BASE = 0x7f00_0000_0000;
/** End of the first function's frame, in the program's addresses: its R10. */
export const STACK_TOP = STACK_BASE + STACK_SIZE * MAX_FRAMES;
/** Default limit of instructions in one run. */
export const STEP_LIMIT = 1_000_000;

/** A helper: R1..R5 in, R0 out, as 64 unsigned bits. */
export type Helper = (r1: bigint, r2: bigint, r3: bigint, r4: bigint, r5: bigint) => bigint;

/**
 * The memory of a program, for its helpers. Arguments are as hostile as the program. An
 * access is within one region as a whole: otherwise, or for a store to a read-only
 * region, it returns false and has no effect.
 */
export interface HelperMemory {
  /** Fills `into` from the program's address. */
  load(address: bigint, into: Uint8Array): boolean;
  /** Copies `bytes` to the program's address. */
  store(address: bigint, bytes: Uint8Array): boolean;
}

export interface RunnerOptions {
  /** Memory besides the stack. */
  readonly regions?: readonly Region[];
  /** By number, the immediate of `call` (unsigned). */
  readonly helpers?: ReadonlyMap<number, Helper>;
  /** Limit of instructions executed in one run. Default 1,000,000. */
  readonly stepLimit?: number;
  /** After a helper for which this returns true, the program ends with the helper's result. */
  readonly unwinds?: (helper: number, result: bigint) => boolean;
}

export const RUNNERS = ["interpreter", "jit"] as const;
export type RunnerName = (typeof RUNNERS)[number];

/**
 * A loaded program. Where RFC 9669 leaves a choice, all runners agree: at the start registers and
 * stack are zero except R1, R2 and R10; a called function sees the caller's registers, and R1..R9
 * are restored afterwards; a run ends with the exception that a helper throws.
 */
export interface Runner {
  readonly name: RunnerName;
  /** Instructions executed by the last run. */
  readonly executed: number;
  /** Valid while the program runs: inside its helpers. */
  readonly memory: HelperMemory;
  /**
   * Runs the program with R1 and R2 set.
   * @returns R0 as a signed 64-bit value
   * @throws EbpfError MEMORY, HELPER, LIMIT
   */
  run(r1?: bigint, r2?: bigint): bigint;
  /** Runs without a BigInt: R1 is an integer in 0..2^53, the result the low half of R0, signed. */
  call(r1: number): number;
  /**
   * Returns `call` for one R1 as a function: the fastest way to
   * run a program repeatedly on one context.
   */
  bind(r1: number): () => number;
}

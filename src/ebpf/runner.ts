/**
 * What runs programs: the reference interpreter, and the compiler to WebAssembly. One suite tests
 * both.
 */
import type { Region } from "./memory.ts";

/** Bytes of stack of each function. */
export const STACK_SIZE = 512;
/** Functions nested in one run, the first included (the kernel's limit). */
export const MAX_FRAMES = 8;
/** Program's address of the stack. */
export const STACK_BASE = 0x7f00_0000_0000;
/** Program's address behind the first function's frame: what R10 holds there. */
export const STACK_TOP = STACK_BASE + STACK_SIZE * MAX_FRAMES;
/** Instructions of one run, unless the caller says otherwise. */
export const STEP_LIMIT = 1_000_000;

/** A helper: R1..R5 in, R0 out, as 64 unsigned bits. */
export type Helper = (r1: bigint, r2: bigint, r3: bigint, r4: bigint, r5: bigint) => bigint;

/**
 * The memory of a program, for its helpers: what it passes is as hostile as the program. All or
 * nothing, inside of one region: false if they are not, or if a region is read only.
 */
export interface HelperMemory {
  /** Fills `into` from the program's address. */
  load(address: bigint, into: Uint8Array): boolean;
  /** Copies `bytes` to the program's address. */
  store(address: bigint, bytes: Uint8Array): boolean;
}

export interface RunnerOptions {
  /** Memory beside the stack. */
  readonly regions?: readonly Region[];
  /** By number, as the immediate of `call` has it (unsigned). */
  readonly helpers?: ReadonlyMap<number, Helper>;
  /** Instructions executed in one run before it is given up. Default 1,000,000. */
  readonly stepLimit?: number;
  /**
   * After a helper that returns true here for its number and result, the program ends with that
   * result.
   */
  readonly unwinds?: (helper: number, result: bigint) => boolean;
}

/**
 * A loaded program. What RFC 9669 leaves open is the same in all engines: a run starts with
 * registers and stack zero but for R1, R2 and R10; a called function sees the caller's registers,
 * and R1..R9 are the caller's again afterwards; a run whose helper throws ends with that exception.
 */
export interface Runner {
  /** Instructions executed by the last run. */
  readonly executed: number;
  /** Valid while the program runs: inside of its helpers. */
  readonly memory: HelperMemory;
  /**
   * Runs the program with R1 and R2 set.
   * @returns R0 as a signed 64-bit value.
   * @throws EbpfError MEMORY, HELPER, LIMIT
   */
  run(r1?: bigint, r2?: bigint): bigint;
  /**
   * The same without a BigInt: R1 from a number (an integer in 0..2^53), the low half of R0,
   * signed.
   */
  call(r1: number): number;
  /**
   * `call` for one R1, as a function: the fastest way to run a program again and again on one
   * context.
   */
  bind(r1: number): () => number;
}

/**
 * What a fuzz target is: a generator of inputs that are plain
 * JSON, and a session that judges one input.
 */
import { Random } from "../support/ebpf-fuzz/random.ts";

/** Plain JSON, so that a failing input can be kept in a file and run again. */
export type Input =
  | number
  | string
  | boolean
  | null
  | readonly Input[]
  | { readonly [name: string]: Input };

/** The code under test did what it must not do. */
export class Find extends Error {
  override readonly name = "Find";
}

export interface Session<I extends Input> {
  /**
   * Runs one input. @returns how many units (messages, accesses)
   * it had. @throws Find and anything else
   */
  run(input: I): number | Promise<number>;
  /**
   * Looks after many inputs whether the code under test still serves a
   * good client and holds no more than before.
   */
  check?(): void | Promise<void>;
  /** What is held now, for the report. */
  resources?(): Resources;
  close(): void | Promise<void>;
}

export interface Resources {
  readonly residentMb: number;
  readonly descriptors: number;
}

export interface Target<I extends Input = Input> {
  readonly name: string;
  readonly description: string;
  /** What `run` counts. */
  readonly unit: string;
  /** Cases that may pass before a fault shows, because another process has it; default 0. */
  readonly lag?: number;
  /** The same input for the same state of `random`. */
  generate(random: Random): I;
  open(): Session<I> | Promise<Session<I>>;
}

/**
 * The random numbers of one case: any case of a campaign can be made again without those before it.
 */
export function caseRandom(seed: number, index: number): Random {
  return new Random(new Random(seed).next() ^ new Random(Math.imul(index, 0x9e3779b1)).next());
}

/** What takes longer is a hang. */
export const CASE_MS = 20_000;

/** @throws Find if `condition` does not hold */
export function expect(condition: boolean, message: () => string): asserts condition {
  if (!condition) throw new Find(message());
}

/** A fuzz target: a generator of inputs in plain JSON, and a session that checks one input. */
import { Random } from "../support/ebpf-fuzz/random.ts";

/** Plain JSON, so that a failing input can be kept in a file and run again. */
export type Input =
  | number
  | string
  | boolean
  | null
  | readonly Input[]
  | { readonly [name: string]: Input };

/** The code under test violated a requirement. */
export class Find extends Error {
  override readonly name = "Find";
}

export interface Session<I extends Input> {
  /**
   * Runs one input. @returns its number of units (messages,
   * accesses). @throws Find, or any other error
   */
  run(input: I): number | Promise<number>;
  /**
   * Checks after many inputs that the code under test still serves a well-behaved client and holds
   * no more resources than before.
   */
  check?(): void | Promise<void>;
  /** Resources held now, for the report. */
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
  /** Number of cases after which a fault may appear, if another process has it; default 0. */
  readonly lag?: number;
  /** Generates the same input for the same state of `random`. */
  generate(random: Random): I;
  open(): Session<I> | Promise<Session<I>>;
}

/** Returns the random numbers of one case, which needs no earlier case of the campaign. */
export function caseRandom(seed: number, index: number): Random {
  return new Random(new Random(seed).next() ^ new Random(Math.imul(index, 0x9e3779b1)).next());
}

/** A case that takes longer hangs. */
export const CASE_MS = 20_000;

/** @throws Find if `condition` does not hold */
export function expect(condition: boolean, message: () => string): asserts condition {
  if (!condition) throw new Find(message());
}

/** One check of the suite: it throws, mostly an AssertionError, if the ring format fails it. */
import type { ProgramForm } from "../abi/index.ts";
import type { RingFormat } from "../devices/format.ts";

/** What is checked. */
export interface Subject {
  readonly format: RingFormat;
  readonly form: ProgramForm;
  /** Ring sizes: powers of two, 16 to 8192. */
  readonly sizes: readonly number[];
  /** Runs of each random check. */
  readonly runs: number;
}

export interface Case {
  readonly name: string;
  run(): void;
}

export function casesOf(
  subject: Subject,
  checks: Readonly<Record<string, (subject: Subject) => void>>,
): Case[] {
  return Object.entries(checks).map(([name, check]) => ({ name, run: () => check(subject) }));
}

export type Random = (below: number) => number;

/** Pseudo-random numbers of a seed: the upper bits of the generator of Numerical Recipes. */
export function randomFrom(seed: number): Random {
  let state = seed >>> 0;
  return (below) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

/** Runs a check with each seed from 1 on; the error names the seed that failed. */
export function withSeeds(runs: number, check: (random: Random) => void): void {
  for (let seed = 1; seed <= runs; seed++) {
    try {
      check(randomFrom(seed));
    } catch (error) {
      throw new Error(`seed ${seed}: ${(error as Error).message}`, { cause: error });
    }
  }
}

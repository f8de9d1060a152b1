/** Failures of a NIC that pass, and statistics of the time that it took to work again. */

import type { Mode } from "./liar/modes.ts";
import type { Random } from "./liar/random.ts";

/** Longer than QEMU waits for an answer, in milliseconds. */
export const STALL_MS = 6000;

export interface Failure {
  readonly name: string;
  /** What the device does meanwhile. */
  readonly mode: Mode;
  /** What is done to the guest: its device is reset, or its allocations fail, too. */
  readonly guest: "reset" | "no memory" | null;
  /** Its server, a process, is stopped meanwhile; the guest reads a register, or does not. */
  readonly stall: "idle" | "read" | null;
}

function failure(name: string, mode: Mode, guest: Failure["guest"] = null): Failure {
  return { name, mode, guest, stall: null };
}

const ALWAYS: readonly Failure[] = [
  failure("reset", "honest", "reset"),
  failure("all ones", "gone"),
  failure("refused enable", "no enable", "reset"),
  failure("refused programs", "forbidden programs", "reset"),
  failure("no memory", "honest", "no memory"),
  { name: "stall during a read", mode: "honest", guest: null, stall: "read" },
];

const KINDS: readonly Failure[] = [
  ...ALWAYS,
  failure("no programs", "no programs", "reset"),
  failure("reset while gone", "gone", "reset"),
  { name: "stall", mode: "honest", guest: null, stall: "idle" },
];

/** Returns `count` failures: one of each of six kinds, then any. */
export function failures(random: Random, count: number): readonly Failure[] {
  const more = Array.from({ length: Math.max(0, count - ALWAYS.length) }, () => random.pick(KINDS));
  return [...ALWAYS, ...more].slice(0, count);
}

/** Returns the median and maximum of the gaps of each kind, in milliseconds, as lines of text. */
export function gapTable(gaps: readonly { kind: string; ms: number }[]): string {
  const kinds = [...new Set(gaps.map(({ kind }) => kind))];
  return [...kinds, "all"]
    .map((kind) => {
      const sorted = gaps
        .filter((gap) => kind === "all" || gap.kind === kind)
        .map(({ ms }) => Math.round(ms))
        .sort((a, b) => a - b);
      return `${kind}: ${sorted.length}, median ${sorted[sorted.length >> 1]}, maximum ${sorted.at(-1)}`;
    })
    .join("\n");
}

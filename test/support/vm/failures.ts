/** Failures of a NIC that pass, and statistics of the time that it took to work again. */

import type { Mode } from "./liar/modes.ts";
import type { Random } from "./liar/random.ts";

/** Longer than QEMU waits for an answer, in milliseconds. */
const STALL_MS = 6000;
/**
 * Longer than the guest's driver waits until it gives the device up: for two registers, and for the
 * two accesses that take the device's access to memory away. Then the server goes on.
 */
const LONG_STALL_MS = 26_000;

export interface Failure {
  readonly name: string;
  /** What the device does meanwhile. */
  readonly mode: Mode;
  /** What is done to the guest: its device is reset, or its allocations fail, too. */
  readonly guest: "reset" | "no memory" | null;
  /** Its server, a process, is stopped meanwhile; the guest reads a register, or does not. */
  readonly stall: "idle" | "read" | null;
  /** How long it lasts; 0: the test chooses. */
  readonly forMs: number;
}

function failure(name: string, mode: Mode, guest: Failure["guest"] = null): Failure {
  return { name, mode, guest, stall: null, forMs: 0 };
}

function stop(name: string, stall: "idle" | "read", forMs: number): Failure {
  return { name, mode: "honest", guest: null, stall, forMs };
}

const ALWAYS: readonly Failure[] = [
  failure("reset", "honest", "reset"),
  failure("all ones", "gone"),
  failure("refused enable", "no enable", "reset"),
  failure("refused programs", "forbidden programs", "reset"),
  failure("no memory", "honest", "no memory"),
  stop("stall during a read", "read", STALL_MS),
];

const KINDS: readonly Failure[] = [
  ...ALWAYS,
  failure("no programs", "no programs", "reset"),
  failure("reset while gone", "gone", "reset"),
  stop("stall", "idle", STALL_MS),
];

/** Returns `count` failures: one of each of six kinds, `long` long stalls, then any. */
export function failures(random: Random, count: number, long: number): readonly Failure[] {
  const first = [...ALWAYS];
  for (let n = 0; n < long; n++) first.push(stop("long stall", "read", LONG_STALL_MS));
  const more = Array.from({ length: Math.max(0, count - first.length) }, () => random.pick(KINDS));
  return [...first, ...more].slice(0, count);
}

/** The time without replies around a failure. */
export interface Gap {
  readonly kind: string;
  readonly ms: number;
  /** How long the failure lasted. */
  readonly forMs: number;
}

const sorted = (values: readonly number[]) => values.map(Math.round).sort((a, b) => a - b);

function spread(values: readonly number[]): string {
  const all = sorted(values);
  return `median ${all[all.length >> 1]}, maximum ${all.at(-1)}`;
}

/**
 * Returns median and maximum of the gaps of each kind, in milliseconds, and of what they exceed the
 * failure by, as lines of text.
 */
export function gapTable(gaps: readonly Gap[]): string {
  return [...new Set(gaps.map(({ kind }) => kind)), "all"]
    .map((kind) => {
      const these = gaps.filter((gap) => kind === "all" || gap.kind === kind);
      const beyond = these.map(({ ms, forMs }) => Math.max(0, ms - forMs));
      const all = spread(these.map(({ ms }) => ms));
      return `${kind}: ${these.length}, ${all}; beyond the failure ${spread(beyond)}`;
    })
    .join("\n");
}

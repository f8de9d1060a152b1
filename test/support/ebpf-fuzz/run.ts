/** Runs one random program in one runner and returns its result and context. */

import { EbpfError } from "../../../src/ebpf/errors.ts";
import { LinearMemory } from "../../../src/ebpf/jit/linear-memory.ts";
import type { Helper } from "../../../src/ebpf/runner.ts";
import { createRunner, type RunnerName } from "../../../src/ebpf/runners.ts";
import { FUZZ_HELPERS } from "./generate.ts";
import { CONTEXT_BYTES } from "./program.ts";
import type { Random } from "./random.ts";

export interface Outcome {
  /** R0, or the error. */
  readonly result: string;
  /** Executed instructions; undefined if they are not counted. */
  readonly executed?: number;
  readonly context: Uint8Array;
}

const BASE = 0x1_0000_0000;
const mix: Helper = (a, b, c, d, e) => a ^ (b << 1n) ^ (c >> 3n) ^ (d + e);
const HELPERS = new Map(FUZZ_HELPERS.map((number) => [number, mix]));

// One memory for all runs: each memory takes gigabytes of addresses.
const memory = new LinearMemory(CONTEXT_BYTES);
const bytes = memory.allocate(CONTEXT_BYTES);

/** Returns a context with random contents. */
export function randomContext(random: Random): Uint8Array {
  const context = new Uint8Array(CONTEXT_BYTES);
  for (let i = 0; i < 160; i++) context[i] = random.next();
  return context;
}

/** Runs by `run`, or by `call`, which gives the low half of R0. */
export function runFuzz(
  engine: RunnerName,
  code: Uint8Array,
  context: Uint8Array,
  how: "run" | "call",
): Outcome {
  bytes.set(context);
  const region = { name: "context", base: BASE, bytes };
  const machine = createRunner(engine, code, { regions: [region], helpers: HELPERS, memory });
  let result: string;
  try {
    const r0 = how === "run" ? machine.run(BigInt(BASE)) : machine.call(BASE);
    result = r0.toString();
  } catch (error) {
    if (!(error instanceof EbpfError)) throw error;
    result = `${error.code} ${error.message}`;
  }
  return { result, executed: machine.executed, context: bytes.slice() };
}

/** @returns the difference, or null */
export function difference(a: Outcome, b: Outcome): string | null {
  if (a.result !== b.result) return `r0 is ${a.result} and ${b.result}`;
  const counted = a.executed !== undefined && b.executed !== undefined;
  if (counted && a.executed !== b.executed)
    return `${a.executed} and ${b.executed} instructions executed`;
  const at = a.context.findIndex((byte, i) => byte !== b.context[i]);
  return at < 0 ? null : `byte ${at} of the context is ${a.context[at]} and ${b.context[at]}`;
}

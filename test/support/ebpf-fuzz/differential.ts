/** Finds a random program with different results in two runners, and shrinks it. */
import { disassemble } from "../../../src/ebpf/text.ts";
import { generate } from "./generate.ts";
import { assembleFuzz, type FuzzProgram } from "./program.ts";
import { Random } from "./random.ts";
import { difference, type Outcome, randomContext, runFuzz } from "./run.ts";
import { shrink } from "./shrink.ts";

/** Runs a program on a copy of the context; undefined if the peer cannot run it. */
export type Peer = (
  code: Uint8Array,
  context: Uint8Array,
  how: "run" | "call",
) => Outcome | undefined;

export interface SeedReport {
  readonly seed: number;
  readonly instructions: number;
  /** The interpreter's outcome. */
  readonly outcome: Outcome;
  /** True if the peer ran it. */
  readonly ran: boolean;
  /** The difference, and the smallest program that shows it. */
  readonly failure?: string;
}

/**
 * Returns the interpreter's outcome for a seed, compared with the peer's. The same seed gives the
 * same program everywhere.
 * @param provable only programs that the kernel's verifier can prove
 * @param call runs as `call`: the low half of R0
 */
export function runSeed(seed: number, peer: Peer, provable: boolean, call = false): SeedReport {
  const program = generate(new Random(seed), { provable });
  const context = randomContext(new Random(~seed));
  const how = call || seed % 3 === 0 ? "call" : "run";
  const compare = (p: FuzzProgram) => {
    const code = assembleFuzz(p);
    const outcome = runFuzz("interpreter", code, context, how);
    const other = peer(code, context, how);
    const problem = other === undefined ? null : difference(outcome, other);
    return { instructions: code.length / 8, outcome, ran: other !== undefined, problem };
  };
  const { problem, ...report } = compare(program);
  if (problem === null) return { seed, ...report };
  const smallest = shrink(program, (smaller) => compare(smaller).problem !== null);
  const lines = disassemble(assembleFuzz(smallest)).join("\n");
  const failure = `seed ${seed}: ${compare(smallest).problem}\n${lines}`;
  return { seed, ...report, failure };
}

export const jitPeer: Peer = (code, context, how) => runFuzz("jit", code, context, how);

/** Returns the seeds to try: those of BPFHV_FUZZ ("first:count"), or the first `count`. */
export function seeds(count: number): number[] {
  const [first, n] = (process.env.BPFHV_FUZZ ?? `1:${count}`).split(":").map(Number);
  return Array.from({ length: n! }, (_, i) => first! + i);
}

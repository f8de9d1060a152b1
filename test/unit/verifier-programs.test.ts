// Our verifier beside the running kernel's on random programs: what ours accepts, the kernel
// accepts.
// BPFHV_SEED=first:count chooses other programs; BPFHV_FULL=1 takes 100,000.
import assert from "node:assert/strict";
import test from "node:test";
import { type Verdict, verify } from "../../src/ebpf/index.ts";
import { disassemble } from "../../src/ebpf/text.ts";
import { BpfMemory, bpfProblem, type LoadResult, loadSocketFilter } from "../../src/os/bpf.ts";
import { close } from "../../src/os/fd.ts";
import { shrinkCode } from "../support/ebpf-fuzz/cut.ts";
import { STRUCTURED_CONTEXT } from "../support/ebpf-fuzz/pieces.ts";
import { Random } from "../support/ebpf-fuzz/random.ts";
import { StructuredGenerator } from "../support/ebpf-fuzz/structured.ts";
import { requires } from "../support/os.ts";

const problem = bpfProblem();
const skip = problem !== null && !requires("bpf") ? `no bpf(2) here: ${problem}` : false;
const COUNT = process.env.BPFHV_FULL === "1" ? 100_000 : 500;
const [FIRST, PROGRAMS] = (process.env.BPFHV_SEED ?? `1:${COUNT}`).split(":").map(Number) as [
  number,
  number,
];
/** Nested loops of a few iterations need a few thousand. */
const BUDGET = 20_000;
/** The kernel checks one in so many of those that ours refuses, to find where ours is stricter. */
const REFUSED_SEEN = 97;
/** The kernel's complexity limits: the only valid reason to refuse what ours accepts. */
const TOO_COMPLEX = /BPF program is too large|The sequence of \d+ jumps is too complex/;

const ours = (code: Uint8Array): Verdict =>
  verify({ name: "random", code }, { contextSize: STRUCTURED_CONTEXT, budget: BUDGET });

function kernel(code: Uint8Array, memory: BpfMemory): LoadResult {
  const result = loadSocketFilter(code, memory, { quiet: true });
  if (result.accepted) close(result.fd);
  return result;
}

const refuses = (result: LoadResult): boolean => !result.accepted && !TOO_COMPLEX.test(result.log);

/** Returns the smallest program that only ours accepts, and the end of the kernel's log. */
function explain(code: Uint8Array, memory: BpfMemory): string {
  const fails = (shorter: Uint8Array): boolean =>
    ours(shorter).accepted && refuses(kernel(shorter, memory));
  const smallest = shrinkCode(code, fails);
  const { log } = kernel(smallest, memory);
  return `${disassemble(smallest).join("\n")}\n${log.trim().split("\n").slice(-8).join("\n")}`;
}

const SEEDS = `seeds ${FIRST} to ${FIRST + PROGRAMS - 1}`;

test(`kernel accepts random programs when ours does (${SEEDS})`, { skip }, (t) => {
  const memory = new BpfMemory(STRUCTURED_CONTEXT);
  t.after(() => memory.close());
  const counts = { both: 0, complex: 0, pieces: 0, refused: 0, seen: 0 };
  const stricter = new Map<string, number>();
  const failures: string[] = [];
  for (let seed = FIRST; seed < FIRST + PROGRAMS; seed++) {
    const generator = new StructuredGenerator(new Random(seed), (code) => ours(code).accepted);
    generator.refused = (code) => {
      if (counts.refused++ % REFUSED_SEEN !== 0) return;
      counts.seen++;
      if (!kernel(code, memory).accepted) return;
      const { rule } = ours(code).refusal!;
      stricter.set(rule, (stricter.get(rule) ?? 0) + 1);
    };
    const code = generator.program();
    counts.pieces += generator.kept;
    const theirs = kernel(code, memory);
    if (refuses(theirs)) failures.push(`seed ${seed}:\n${explain(code, memory)}`);
    else counts[theirs.accepted ? "both" : "complex"]++;
  }
  t.diagnostic(`${JSON.stringify(counts)}; ours alone refuses: ${JSON.stringify([...stricter])}`);
  const shown = failures.slice(0, 3).join("\n\n");
  assert.equal(
    failures.length,
    0,
    `the kernel refuses ${failures.length} that ours accepts:\n${shown}`,
  );
  assert.ok(counts.both > 0.99 * PROGRAMS, `only ${counts.both} were accepted by both`);
  assert.ok(counts.pieces > 8 * PROGRAMS, `only ${counts.pieces} pieces were kept`);
});

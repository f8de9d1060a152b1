// Our verifier beside the running kernel's: what ours accepts, the kernel accepts.
import assert from "node:assert/strict";
import test from "node:test";
import { summarise, verify } from "../../src/ebpf/index.ts";
import { assembleText, disassemble } from "../../src/ebpf/text.ts";
import { BpfMemory, bpfProblem, loadSocketFilter } from "../../src/os/bpf.ts";
import { close } from "../../src/os/fd.ts";
import { requires } from "../support/os.ts";
import { KERNELS } from "../support/refusals/kernels.ts";
import { SIZE } from "../support/refusals/row.ts";
import {
  deviceSamples,
  mutant,
  randomNumbers,
  type Sample,
  safeSamples,
} from "../support/verifier.ts";

const problem = bpfProblem();
const skip = problem !== null && !requires("bpf") ? `no bpf(2) here: ${problem}` : false;
const FULL = process.env.BPFHV_FULL === "1";
const MUTANTS = FULL ? 100_000 : 1_200;
const SEED = Number(process.env.BPFHV_FUZZ?.split(":")[0] ?? 11);
/**
 * The kernel checks one in so many of those that ours refuses:
 * that tests completeness only, and is slow.
 */
const REFUSED_SEEN = 10;

/**
 * Reasons of the kernel to refuse what ours accepts: the table in
 * src/ebpf/verifier/README.md, by its log.
 */
const KERNEL_REASONS: readonly (readonly [string, RegExp])[] = [
  [
    "too complex for the kernel",
    /BPF program is too large|The sequence of \d+ jumps is too complex/,
  ],
];

/** Contexts as map values, by size. */
const memories = new Map<number, BpfMemory>();
function memoryOf(size: number): BpfMemory {
  const memory = memories.get(size) ?? new BpfMemory(size);
  memories.set(size, memory);
  return memory;
}
test.after(() => {
  for (const memory of memories.values()) memory.close();
});

function kernel({ program, options }: Sample): { accepted: boolean; log: string } {
  const result = loadSocketFilter(program.code, memoryOf(options.contextSize), { quiet: true });
  if (result.accepted) close(result.fd);
  return result;
}

test("both verifiers accept safe programs", { skip }, () => {
  const samples = [16, 256, 8192].flatMap((bufs) => deviceSamples(bufs, "helperfree"));
  for (const sample of [...samples, ...safeSamples()]) {
    const ours = verify(sample.program, sample.options);
    assert.ok(ours.accepted, summarise(ours));
    const theirs = kernel(sample);
    assert.ok(theirs.accepted, `${sample.program.name}: ${theirs.log}`);
  }
});

test("kernel refuses the recorded differences", { skip }, () => {
  for (const [what, program] of KERNELS) {
    const code = assembleText(program as string[]);
    const options = { contextSize: SIZE };
    const { accepted } = kernel({ program: { name: "test", code }, options } as Sample);
    assert.equal(accepted, false, what);
  }
});

test(`kernel accepts those of ${MUTANTS} mutants that ours accepts`, { skip }, (t) => {
  const random = randomNumbers(SEED);
  const samples = [...deviceSamples(16, "helperfree"), ...safeSamples(), ...safeSamples()];
  const counts = { both: 0, neither: 0, ours: 0, kernel: 0 };
  const explained = new Map<string, number>();
  const unexplained: string[] = [];
  for (let n = 0; n < MUTANTS; n++) {
    const origin = samples[random(samples.length)]!;
    const code = mutant(origin.program.code, random);
    const sample = { ...origin, program: { ...origin.program, code } };
    // The kernel does not check a program's result.
    const { program: _, ...options } = sample.options;
    const ours = verify(sample.program, options);
    if (!ours.accepted && n % REFUSED_SEEN !== 0) continue;
    const theirs = kernel(sample);
    if (ours.accepted === theirs.accepted) counts[ours.accepted ? "both" : "neither"]++;
    else counts[ours.accepted ? "ours" : "kernel"]++;
    if (!ours.accepted || theirs.accepted) continue;
    const reason = KERNEL_REASONS.find(([, log]) => log.test(theirs.log))?.[0];
    if (reason === undefined) {
      unexplained.push(`mutant ${n}:\n${disassemble(code).join("\n")}\n${theirs.log}`);
      continue;
    }
    explained.set(reason, (explained.get(reason) ?? 0) + 1);
  }
  t.diagnostic(`${JSON.stringify(counts)} ${JSON.stringify([...explained])}`);
  const shown = unexplained.slice(0, 3).join("\n");
  assert.equal(unexplained.length, 0, `the kernel refuses what ours accepts:\n${shown}`);
  assert.ok(counts.both > MUTANTS / 25, `only ${counts.both} were accepted by both`);
  // If only the kernel accepts, it is mostly a leak of addresses, which it allows to root.
  assert.ok(
    counts.kernel < counts.neither / 10,
    `${counts.kernel} were accepted by the kernel alone`,
  );
});

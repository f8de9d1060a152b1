// Accepted programs keep the verifier's guarantees when they run, with any content of the context.
import assert from "node:assert/strict";
import test from "node:test";
import {
  deviceSamples,
  mutant,
  randomNumbers,
  type Sample,
  safeSamples,
} from "../../../test/support/verifier.ts";
import { Interpreter } from "../interpreter.ts";
import { disassemble } from "../text.ts";
import { LARGEST_RESULT } from "./helpers.ts";
import { summarise, verify } from "./index.ts";

const FULL = process.env.BPFHV_FULL === "1";
const MUTANTS = FULL ? 200_000 : 3_000;
const RUNS = FULL ? 40 : 12;
const BASE = 0x10_0000;
const LIMIT = 1_000_000;

for (const form of ["helperfree", "v1"] as const) {
  for (const bufs of [16, 256, 8192]) {
    test(`devices' ${form} programs are accepted with ${bufs} buffers`, () => {
      const samples = deviceSamples(bufs, form);
      assert.ok(samples.length >= 8);
      for (const { program, options } of samples) {
        const verdict = verify(program, options);
        assert.ok(verdict.accepted, summarise(verdict));
      }
    });
  }
}

test("safe programs are accepted", () => {
  for (const { program, options } of safeSamples()) {
    const verdict = verify(program, options);
    assert.ok(verdict.accepted, summarise(verdict));
  }
});

/** Fills a context with small and huge numbers, so that comparisons go both ways. */
function fill(bytes: Uint8Array, random: (n: number) => number): void {
  const words = new Uint32Array(bytes.buffer, 0, bytes.length >> 2);
  const kind = random(4);
  for (let n = 0; n < words.length; n++) {
    const small = kind === 0 || (kind === 1 && random(2) === 0);
    words[n] = kind === 3 && random(4) ? 0 : small ? random(70) : random(2 ** 32);
  }
}

/** Runs an accepted program on random contexts, in the interpreter, which checks every access. */
function run(sample: Sample, longest: number, random: (n: number) => number): void {
  const { contextSize, program } = sample.options;
  const bytes = new Uint8Array(Math.ceil(contextSize / 8) * 8).subarray(0, contextSize);
  const regions = [{ name: "context", base: BASE, bytes }];
  const machine = new Interpreter(sample.program.code, { regions, stepLimit: LIMIT });
  for (let n = 0; n < RUNS; n++) {
    fill(bytes, random);
    const result = machine.call(BASE);
    assert.ok(machine.executed <= longest, `${machine.executed} instructions, not ${longest}`);
    const most = program === undefined ? undefined : LARGEST_RESULT[program];
    if (most !== undefined) assert.ok(result <= most, `returned ${result}`);
  }
}

test(`accepted ones of ${MUTANTS} mutants stay in bounds, end in time and return valid results`, () => {
  const random = randomNumbers(7);
  const samples = [...deviceSamples(16, "helperfree"), ...safeSamples(), ...safeSamples()];
  let accepted = 0;
  for (let n = 0; n < MUTANTS; n++) {
    const origin = samples[random(samples.length)]!;
    const code = mutant(origin.program.code, random);
    const sample = { ...origin, program: { name: origin.program.name, code } };
    const verdict = verify(sample.program, { ...sample.options, budget: 30_000 });
    if (!verdict.accepted) continue;
    accepted++;
    try {
      run(sample, verdict.longest, random);
    } catch (error) {
      const why = error instanceof Error ? error.message : String(error);
      assert.fail(`mutant ${n} of ${origin.program.name}: ${why}\n${disassemble(code).join("\n")}`);
    }
  }
  assert.ok(accepted > MUTANTS / 20, `only ${accepted} were accepted`);
});

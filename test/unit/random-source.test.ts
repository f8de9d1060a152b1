// Random programs, compiled and run, beside an independent evaluator that knows BigInt and the
// rules only.
import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { compileFunction } from "../../src/compiler/index.ts";
import { Interpreter } from "../../src/ebpf/interpreter.ts";
import { verify } from "../../src/ebpf/verifier/index.ts";
import { Choices } from "../support/random-source/choices.ts";
import { MEMORY, programOf } from "../support/random-source/program.ts";

const BASE = 0x10_0000;
const FULL = process.env.BPFHV_FULL === "1";

/** Constructs of the random programs, to check that each part of the language occurs. */
const seen = new Map<string, number>();
const PARTS: Readonly<Record<string, RegExp>> = {
  ...{ switch: /switch/, while: /while/, do: /do \{/, continue: /continue/, swap: /swap\d/ },
  ...{ compareExchange: /= compareExchange/, exchange: /= exchange/, fetchXor: /= fetchXor/ },
  ...{ zero: /\) (?:===|!==|<|>=) [ui]\d+\([01]n?\)\)/ },
  ...{ called: /noinline/, stack: /\bs\.\w+ [^=]?=/ },
};

function check(choices: readonly number[], contents: readonly number[]): void {
  const program = programOf(new Choices(choices));
  for (const [part, text] of Object.entries(PARTS)) {
    if (text.test(program.text)) seen.set(part, (seen.get(part) ?? 0) + 1);
  }
  const compiled = compileFunction(program.source, "main", { MEMORY });
  const bytes = new Uint8Array(MEMORY.size);
  bytes.set(contents);
  bytes.fill(0, MEMORY.out.offset);
  // Padding is undefined.
  bytes.fill(0, 6, 8);
  const wanted = program.run(bytes);
  const regions = [{ name: "context", base: BASE, bytes }];
  new Interpreter(compiled.code, { regions, stepLimit: 10_000_000 }).run(BigInt(BASE));
  assert.deepEqual(bytes, wanted, program.text);
  const verdict = verify(compiled, { contextSize: MEMORY.size, budget: 50_000 });
  const { rule, message } = verdict.refusal ?? {};
  // The verifier may exceed its budget. Any other refusal is an error.
  assert.ok(verdict.accepted || rule === "TOO_COMPLEX", `${rule} ${message}\n${program.text}`);
}

const numRuns = FULL ? 20_000 : 25;

test("random programs give a BigInt evaluator's results, and are proved", (t) => {
  fc.assert(
    fc.property(
      fc.array(fc.integer({ min: 0 }), { minLength: 40, maxLength: 200 }),
      fc.array(fc.constantFrom(0, 1, 0x7f, 0x80, 0xff, 0x55), { minLength: 32, maxLength: 32 }),
      check,
    ),
    // Shrinking takes minutes. The seed is printed.
    { numRuns, endOnFailure: true },
  );
  t.diagnostic(JSON.stringify(Object.fromEntries(seen)));
});

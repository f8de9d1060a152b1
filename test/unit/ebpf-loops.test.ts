// Random loops that walk through memory: interpreter = JIT, out of bounds as well.
import assert from "node:assert/strict";
import test from "node:test";
import { EbpfError } from "../../src/ebpf/errors.ts";
import { analyseFlow } from "../../src/ebpf/jit/flow.ts";
import { entryGuesses, layOut } from "../../src/ebpf/jit/layout.ts";
import { LinearMemory } from "../../src/ebpf/jit/linear-memory.ts";
import { analyseLoop } from "../../src/ebpf/jit/loop.ts";
import { constant } from "../../src/ebpf/jit/range.ts";
import { analyseRanges, entryRanges } from "../../src/ebpf/jit/ranges.ts";
import { findRow } from "../../src/ebpf/jit/row.ts";
import { STACK_TOP } from "../../src/ebpf/runner.ts";
import { createRunner, type RunnerName } from "../../src/ebpf/runners.ts";
import { loadProgram } from "../../src/ebpf/structure.ts";
import { disassemble } from "../../src/ebpf/text.ts";
import { seeds } from "../support/ebpf-fuzz/differential.ts";
import { generateLoop, LOOP_BYTES, type LoopProgram } from "../support/ebpf-fuzz/loops.ts";
import { Random } from "../support/ebpf-fuzz/random.ts";

const SEEDS = seeds(process.env.BPFHV_FULL === "1" ? 100_000 : 250);
// One memory for all runs: each memory takes gigabytes of addresses.
const memory = new LinearMemory(2 * LOOP_BYTES);
const bytes = [memory.allocate(LOOP_BYTES), memory.allocate(LOOP_BYTES)];

/** Forms of loops that the JIT optimises. */
interface Forms {
  /** Loops that certainly run for a number of iterations. */
  stays: number;
  /** Loops with several exits. */
  exits: number;
}

function count(forms: Forms, { code, regions }: LoopProgram): void {
  const placed = regions.map((region, n) => ({ ...region, bytes: bytes[n]! }));
  const layout = layOut(placed, memory);
  const flow = analyseFlow(loadProgram(code), 0);
  const entry = entryRanges(STACK_TOP, constant(regions[0]!.base), constant(0));
  const ranges = analyseRanges(flow, entry);
  flow.isLoop.forEach((loop, head) => {
    const row = loop === 1 ? findRow(flow, head) : undefined;
    const known = ranges[head];
    if (row === undefined || known === undefined) return;
    const around = { layout, frame: undefined, guesses: entryGuesses(layout), known };
    const { exit } = analyseLoop(flow, row, around);
    if (exit !== undefined) forms.stays++;
    if (row.exits.filter((to) => to >= 0).length > 1) forms.exits++;
  });
}

interface Outcome {
  readonly result: string;
  readonly executed: number;
  readonly memory: Buffer;
}

function outcome(engine: RunnerName, { code, regions }: LoopProgram, seed: number): Outcome {
  const random = new Random(~seed);
  for (const region of bytes) for (let i = 0; i < LOOP_BYTES; i++) region[i] = random.next();
  const machine = createRunner(engine, code, {
    regions: regions.map((region, n) => ({ ...region, bytes: bytes[n]! })),
    memory,
  });
  const r1 = regions[0]!.base;
  let result: string;
  try {
    result = String(
      seed % 3 === 0 ? machine.bind(r1)() : BigInt.asIntN(32, machine.run(BigInt(r1))),
    );
  } catch (error) {
    if (!(error instanceof EbpfError)) throw error;
    result = `${error.code} ${error.message}`;
  }
  return { result, executed: machine.executed, memory: Buffer.concat(bytes) };
}

test(`${SEEDS.length} random loops give the same results in the interpreter and in the JIT`, () => {
  let faults = 0;
  const forms = { stays: 0, exits: 0 };
  for (const seed of SEEDS) {
    const program = generateLoop(new Random(seed));
    count(forms, program);
    const [expected, found] = (["interpreter", "jit"] as const).map((e) =>
      outcome(e, program, seed),
    );
    const lines = () => [`seed ${seed}`, ...disassemble(program.code)].join("\n");
    assert.equal(found!.result, expected!.result, lines());
    assert.equal(found!.executed, expected!.executed, lines());
    assert.deepEqual(found!.memory, expected!.memory, lines());
    if (expected!.result.startsWith("MEMORY")) faults++;
  }
  // Many run to their end, and many exceed the region.
  assert.ok(faults > SEEDS.length / 5 && faults < (SEEDS.length * 4) / 5, String(faults));
  for (const [form, loops] of Object.entries(forms)) {
    assert.ok(loops > SEEDS.length / 20, `${form}: ${loops} loops`);
  }
});

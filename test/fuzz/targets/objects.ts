/**
 * Mutated objects, texts and code for reader, assembler,
 * verifier, interpreter and JIT, which must agree.
 */
import { HELPERS } from "../../../src/abi/index.ts";
import { looksLikeElf, readElf } from "../../../src/ebpf/elf-reader.ts";
import { EbpfError } from "../../../src/ebpf/errors.ts";
import { LinearMemory } from "../../../src/ebpf/jit/linear-memory.ts";
import type { Program } from "../../../src/ebpf/program.ts";
import type { Helper } from "../../../src/ebpf/runner.ts";
import { createRunner, type RunnerName } from "../../../src/ebpf/runners.ts";
import { assembleText, disassemble } from "../../../src/ebpf/text.ts";
import { verify } from "../../../src/ebpf/verifier/index.ts";
import { CONTEXT_BYTES } from "../../support/ebpf-fuzz/program.ts";
import { Random } from "../../support/ebpf-fuzz/random.ts";
import { randomContext } from "../../support/ebpf-fuzz/run.ts";
import { expect, type Resources, type Session, type Target } from "../target.ts";
import { damagedInput, FORMATS, type Format } from "./objects-damage.ts";
import { ResourceLimit, resourcesOf } from "./resources.ts";

type Damaged = {
  readonly format: Format;
  /** Base 64. */
  readonly bytes: string;
  /** Seed of the context's content. */
  readonly seed: number;
};

const BASE = 0x1_0000_0000;
const STEP_LIMIT = 100_000;
const PROGRAMS = 8;
const WARM_UP_CHECKS = 20;

const mix: Helper = (a, b, c, d, e) => a ^ (b << 1n) ^ (c >> 3n) ^ (d + e);
const HELPER_TABLE = new Map<number, Helper>(Object.values(HELPERS).map((n) => [n, mix]));

// One memory for all runs: each memory takes gigabytes of addresses.
const memory = new LinearMemory(CONTEXT_BYTES);
const bytes = memory.allocate(CONTEXT_BYTES);

function generate(random: Random): Damaged {
  const format = random.pick(FORMATS);
  const damaged = damagedInput(format, random);
  return { format, bytes: Buffer.from(damaged).toString("base64"), seed: random.next() };
}

/** Returns the programs of the input, or none if it is refused correctly. */
function programsOf({ format, bytes }: Damaged): readonly Program[] {
  const input = Uint8Array.from(Buffer.from(bytes, "base64"));
  try {
    if (format === "elf") return looksLikeElf(input) ? readElf(input) : [];
    if (format === "raw") return [{ name: "raw", code: input }];
    return [{ name: "text", code: assembleText(Buffer.from(input).toString("utf8")) }];
  } catch (error) {
    if (error instanceof EbpfError) return [];
    throw error;
  }
}

interface Outcome {
  readonly result: string;
  readonly context: Uint8Array;
}

function outcomeOf(engine: RunnerName, code: Uint8Array, context: Uint8Array): Outcome {
  bytes.set(context);
  const region = { name: "context", base: BASE, bytes };
  const options = { regions: [region], helpers: HELPER_TABLE, memory, stepLimit: STEP_LIMIT };
  try {
    const r0 = createRunner(engine, code, options).run(BigInt(BASE));
    return { result: `${r0}`, context: bytes.slice() };
  } catch (error) {
    if (!(error instanceof EbpfError)) throw error;
    return { result: `${error.code} ${error.message}`, context: bytes.slice() };
  }
}

function judge(program: Program, context: Uint8Array): void {
  const { accepted } = verify(program, { contextSize: CONTEXT_BYTES, form: "v1" });
  const one = outcomeOf("interpreter", program.code, context);
  if (accepted) {
    // Accepted programs of this form call only helpers of the table.
    expect(!/^[A-Z]/.test(one.result), () => `accepted, but its run ends with ${one.result}`);
    disassemble(program.code);
  }
  const other = outcomeOf("jit", program.code, context);
  // The JIT checks the limit less often, and may not run everything that the interpreter runs.
  if (/^(LIMIT|UNSUPPORTED)/.test(one.result) || /^(LIMIT|UNSUPPORTED)/.test(other.result)) return;
  expect(one.result === other.result, () => `interpreter: ${one.result}; JIT: ${other.result}`);
  const at = one.context.findIndex((byte, i) => byte !== other.context[i]);
  expect(at < 0, () => `byte ${at} of the context differs between interpreter and JIT`);
}

class ToolchainSession implements Session<Damaged> {
  readonly #limit = new ResourceLimit("self", WARM_UP_CHECKS);

  run(input: Damaged): number {
    const context = randomContext(new Random(input.seed));
    for (const program of programsOf(input).slice(0, PROGRAMS)) judge(program, context);
    return 1;
  }

  check(): Promise<void> {
    return this.#limit.check();
  }

  resources(): Resources {
    return resourcesOf("self");
  }

  close(): void {}
}

export const objects: Target<Damaged> = {
  name: "objects",
  description: "damaged objects, texts and code: verdict, interpreter and JIT agree",
  unit: "objects",
  generate,
  open: () => new ToolchainSession(),
};

/** `bpfhv run`: one program on memory that the user gives, without root or a kernel. */
import { readFileSync, statSync } from "node:fs";
import { Command, Option } from "commander";
import { HELPERS } from "../abi/index.ts";
import { EbpfError } from "../ebpf/errors.ts";
import { LinearMemory } from "../ebpf/jit/linear-memory.ts";
import { lineOf, type Program } from "../ebpf/program.ts";
import type { Helper, Runner } from "../ebpf/runner.ts";
import { createRunner, RUNNERS, type RunnerName } from "../ebpf/runners.ts";
import { failure, Usage, whole } from "../errors.ts";
import { bytesFromHex, FORMATS, type InputOptions, readPrograms } from "./program-input.ts";

interface RunFlags extends InputOptions {
  memory?: string;
  memoryFile?: string;
  size?: number;
  repeat: number;
  stepLimit: number;
  engine: RunnerName;
  json: boolean;
}

/** Where programs see the memory. */
const MEMORY_BASE = 0x1_0000_0000;
const MAX_MEMORY = 64 << 20;
const size = whole("--size", 0, MAX_MEMORY);
const repeat = whole("--repeat", 1, 1e9);
const limit = whole("--step-limit", 1, 1e12);

/** What version 1 programs call when no packet is looked at. */
const HELPER_TABLE: ReadonlyMap<number, Helper> = new Map([
  [HELPERS.smp_mb_full as number, () => 0n],
  [HELPERS.rx_pkt_alloc as number, () => 0n],
]);

export function runCommand(): Command {
  return new Command("run")
    .description("run a program: r1 is the address of the memory, r2 its length")
    .argument(
      "<file>",
      "an ELF object, or one program in hexadecimal, text or raw bytes; - is stdin",
    )
    .option("--section <name>", "of an object, this program")
    .addOption(new Option("--format <name>", "default: by content").choices(FORMATS))
    .option("--memory <hex>", "what the program finds in memory, as hexadecimal bytes")
    .option("--memory-file <file>", "the same, the bytes of a file")
    .option("--size <bytes>", "length of the memory; what is not given is zero", size)
    .option("--repeat <times>", "runs, each on the memory that the last one left", repeat, 1)
    .option("--step-limit <n>", "instructions of one run before it is given up", limit, 1_000_000)
    .addOption(new Option("--engine <name>").choices(RUNNERS).default("jit"))
    .option("--json", "as JSON", false)
    .action((file: string, flags: RunFlags) => {
      const program = chooseProgram(readPrograms(file, flags), file);
      const memory = initialMemory(flags);
      process.stdout.write(report(program, execute(program, memory, flags), flags));
    });
}

function chooseProgram(programs: readonly Program[], file: string): Program {
  const [first, second] = programs;
  if (first === undefined) throw failure(`${file} holds no program`);
  if (second === undefined) return first;
  const names = programs.map((p) => p.name).join(", ");
  throw new Usage(`${file} holds several programs: choose one of ${names} with --section`);
}

function initialMemory({ memory, memoryFile, size }: RunFlags): Uint8Array {
  if (memory !== undefined && memoryFile !== undefined) {
    throw new Usage("give either --memory or --memory-file");
  }
  const given = memoryFile === undefined ? bytesOf(memory) : readMemory(memoryFile);
  const length = size ?? given.length;
  if (length < given.length) {
    throw new Usage(`--size ${length} is less than the ${given.length} bytes of the memory given`);
  }
  if (length > MAX_MEMORY) throw new Usage(`memory is at most ${MAX_MEMORY} bytes`);
  const bytes = new Uint8Array(length);
  bytes.set(given);
  return bytes;
}

const bytesOf = (hex: string | undefined): Uint8Array =>
  hex === undefined || hex === "" ? new Uint8Array(0) : bytesFromHex(hex);

function readMemory(path: string): Uint8Array {
  try {
    if (statSync(path).size > MAX_MEMORY) throw failure(`${path} is over ${MAX_MEMORY} bytes`);
    return readFileSync(path);
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (code === undefined) throw error;
    throw failure(`cannot read ${path}: ${message}`);
  }
}

interface RunResult {
  readonly r0: bigint;
  /** Instructions of the last run. */
  readonly executed: number;
  /** Mean of the runs. */
  readonly nanoseconds: number;
  readonly changed: readonly Change[];
}

/** Neighbouring bytes that are not what they were. */
interface Change {
  readonly offset: number;
  readonly before: string;
  readonly after: string;
}

function execute(program: Program, initial: Uint8Array, flags: RunFlags): RunResult {
  if (flags.repeat === 0) throw new Usage("--repeat takes 1 or more");
  const memory = new LinearMemory(initial.length + 8);
  const bytes = memory.allocate(initial.length);
  bytes.set(initial);
  const regions = initial.length === 0 ? [] : [{ name: "memory", base: MEMORY_BASE, bytes }];
  const { engine, stepLimit } = flags;
  const options = { regions, memory, stepLimit, helpers: HELPER_TABLE };
  try {
    const machine = createRunner(engine, program.code, options);
    const [r0, nanoseconds] = timed(machine, initial.length, flags.repeat);
    return { r0, executed: machine.executed, nanoseconds, changed: changes(initial, bytes) };
  } catch (error) {
    if (error instanceof EbpfError) throw failure(explain(program, error));
    throw error;
  }
}

function timed(machine: Runner, length: number, repeat: number): [bigint, number] {
  const r1 = length === 0 ? 0n : BigInt(MEMORY_BASE);
  const r2 = BigInt(length);
  let r0 = 0n;
  const start = process.hrtime.bigint();
  for (let n = 0; n < repeat; n++) r0 = machine.run(r1, r2);
  return [r0, Number(process.hrtime.bigint() - start) / repeat];
}

/** The error with the source line, if it is known. */
function explain(program: Program, error: EbpfError): string {
  const line = error.index < 0 ? undefined : lineOf(program, error.index);
  const place = line === undefined ? "" : `\n  ${line.file}:${line.line}: ${line.text}`;
  return `${program.name}: ${error.message}${place}`;
}

function changes(before: Uint8Array, after: Uint8Array): Change[] {
  const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString("hex");
  const found: Change[] = [];
  for (let at = 0; at < before.length; at++) {
    const offset = at;
    while (at < before.length && before[at] !== after[at]) at++;
    if (at === offset) continue;
    found.push({
      offset,
      before: hex(before.subarray(offset, at)),
      after: hex(after.subarray(offset, at)),
    });
  }
  return found;
}

function report(program: Program, result: RunResult, flags: RunFlags): string {
  const r0 = `0x${BigInt.asUintN(64, result.r0).toString(16)}`;
  if (flags.json) {
    const { engine, repeat } = flags;
    const { executed, nanoseconds, changed } = result;
    const record = { program: program.name, engine, r0, executed, repeat, nanoseconds, changed };
    return `${JSON.stringify(record, null, 2)}\n`;
  }
  const runs = flags.repeat === 1 ? "1 run" : `each of ${flags.repeat} runs`;
  const lines = [
    `r0        ${r0} (${result.r0})`,
    `executed  ${result.executed} instructions`,
    `time      ${result.nanoseconds.toFixed(0)} ns, ${runs} (${flags.engine})`,
    ...result.changed.map((c) => `memory    ${c.offset}: ${c.before} -> ${c.after}`),
  ];
  return `${lines.join("\n")}\n`;
}

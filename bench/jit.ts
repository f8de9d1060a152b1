/**
 * Run time of programs: machine code by clang -O2, our WebAssembly, our interpreter, and for
 * comparison clang without vectors and the kernel's JIT. One C source for all, each program in a
 * separate process, in turns, medians of the iterations. The ratio is to clang -O2.
 *
 *     node dist/bench/jit.js [--rounds 25] [--json FILE]
 */
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { readElf } from "../src/ebpf/elf-reader.ts";
import { LinearMemory } from "../src/ebpf/jit/linear-memory.ts";
import { createRunner, type RunnerName } from "../src/ebpf/runners.ts";
import { BpfMemory, bpfProblem, loadSocketFilter, testRun } from "../src/os/bpf.ts";

const SELF = fileURLToPath(import.meta.url);
const SOURCE = fileURLToPath(new URL("../../bench/jit/programs.c", import.meta.url));
const BASE = 0x1_0000_0000;
const MEMORY = 8192;
/**
 * Approximate nanoseconds of one measurement: less than a time slice, so that few are interrupted.
 */
const BUDGET = 2e6;
/** The interpreter gets this part of the runs. */
const INTERPRETER_SHARE = 0.01;
/** Milliseconds after which V8 has optimised a program, in its own threads. */
const WARM = 1500;
/**
 * Limits as multiples of native code. clang vectorises `wide`, and the JIT
 * does not: no ring format has such a loop.
 */
const AIM = { short: 3, long: 1.5, wide: 6 } as const;

const PROGRAMS: Readonly<Record<string, keyof typeof AIM>> = {
  checksum20: "short",
  classify: "short",
  publish: "short",
  fnv4096: "long",
  xorshift: "long",
  checksum4096: "wide",
  sieve: "long",
};
const WAYS = ["native", "scalar", "kernel", "jit", "interpreter"] as const;
type Way = (typeof WAYS)[number];

/** Runs a program `runs` times: returns nanoseconds, and the low half of the last R0. */
type Runner = (runs: number) => { nanoseconds: number; r0: number };

function compile(folder: string): void {
  clang(["-O2", "-o", join(folder, "native"), SOURCE]);
  const scalar = ["-fno-vectorize", "-fno-slp-vectorize"];
  clang(["-O2", ...scalar, "-o", join(folder, "scalar"), SOURCE]);
  clang(["-O2", "-target", "bpf", "-mcpu=v3", "-c", "-o", join(folder, "programs.o"), SOURCE]);
}

function clang(args: readonly string[]): void {
  const { status, error, stderr } = spawnSync("clang", args, { encoding: "utf8" });
  if (error !== undefined) skip("there is no clang: apt-get install clang");
  if (status !== 0) skip(`clang ${args.join(" ")}: ${stderr}`);
}

function skip(why: string): never {
  console.log(`bench/jit: skipped: ${why}`);
  process.exit(0);
}

function nativeRunner(path: string, name: string): Runner {
  return (runs) => {
    const { stdout } = spawnSync(path, [name, String(runs)], { encoding: "utf8" });
    const [nanoseconds, r0] = stdout.split(" ").map(Number);
    return { nanoseconds: nanoseconds!, r0: r0! };
  };
}

function fill(bytes: Uint8Array): void {
  for (let i = 0; i < MEMORY; i++) bytes[i] = i * 31 + 7;
}

function engineRunner(engine: RunnerName, code: Uint8Array): Runner {
  const memory = new LinearMemory(MEMORY);
  const bytes = memory.allocate(MEMORY, 64);
  fill(bytes);
  const regions = [{ name: "memory", base: BASE, bytes }];
  const machine = createRunner(engine, code, { regions, memory, stepLimit: 1e9 });
  const run = machine.bind(BASE);
  // Each runner is called from its own call site, as a driver calls its programs.
  const repeat = engine === "jit" ? repeatJit : repeatInterpreter;
  return (runs) => {
    const start = process.hrtime.bigint();
    const r0 = repeat(run, runs);
    return { nanoseconds: Number(process.hrtime.bigint() - start), r0 };
  };
}

function repeatJit(run: () => number, runs: number): number {
  let r0 = 0;
  for (let n = 0; n < runs; n++) r0 = run();
  return r0;
}

function repeatInterpreter(run: () => number, runs: number): number {
  let r0 = 0;
  for (let n = 0; n < runs; n++) r0 = run();
  return r0;
}

/**
 * The kernel reports whole nanoseconds per run. Undefined without the right to load, or if it
 * refuses.
 */
function kernelRunner(code: Uint8Array): Runner | undefined {
  if (bpfProblem() !== null) return undefined;
  const memory = new BpfMemory(MEMORY);
  fill(memory.bytes);
  const loaded = loadSocketFilter(code, memory, { quiet: true });
  if (!loaded.accepted) return undefined;
  return (runs) => {
    const { r0, nanoseconds } = testRun(loaded.fd, runs);
    return { nanoseconds: nanoseconds * runs, r0: r0 | 0 };
  };
}

function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[values.length >> 1]!;
}

interface Row {
  readonly program: string;
  readonly kind: keyof typeof AIM;
  /** Nanoseconds per run, by iteration. */
  readonly raw: Readonly<Record<Way, number[]>>;
}

/**
 * Measures in a separate process: V8's code for a call
 * depends on the other targets of its call site.
 */
function measure(program: string, folder: string, rounds: number): Row {
  const { code } = readElf(readFileSync(join(folder, "programs.o"))).find(
    ({ name }) => name === program,
  )!;
  const jit = engineRunner("jit", code);
  const interpreter = engineRunner("interpreter", code);
  const runners: Readonly<Record<Way, Runner | undefined>> = {
    native: nativeRunner(join(folder, "native"), program),
    scalar: nativeRunner(join(folder, "scalar"), program),
    kernel: kernelRunner(code),
    jit,
    interpreter,
  };
  const until = Date.now() + WARM;
  while (Date.now() < until) jit(50);
  for (let n = 0; n < 20; n++) interpreter(5);
  const each = median(Array.from({ length: 9 }, () => jit(50).nanoseconds / 50));
  const runs = Math.max(4, Math.round(BUDGET / each));
  const raw: Row["raw"] = { native: [], scalar: [], kernel: [], jit: [], interpreter: [] };
  for (let round = 0; round < rounds; round++) {
    const results = new Map<string, number>();
    for (const way of WAYS) {
      const count = way === "interpreter" ? Math.ceil(runs * INTERPRETER_SHARE) : runs;
      const result = runners[way]?.(count);
      if (result === undefined) continue;
      raw[way].push(result.nanoseconds / count);
      results.set(way, result.r0);
    }
    // A program's result does not depend on the number of its runs.
    if (new Set(results.values()).size > 1) throw new Error(`${program}: ${[...results]}`);
  }
  return { program, kind: PROGRAMS[program]!, raw };
}

function measureAlone(program: string, folder: string, rounds: string): Row {
  const args = [SELF, "--program", program, "--folder", folder, "--rounds", rounds];
  const { status, stdout, stderr } = spawnSync(process.execPath, args, { encoding: "utf8" });
  if (status !== 0) throw new Error(`${program}: ${stderr}`);
  return JSON.parse(stdout) as Row;
}

function table(rows: readonly Row[]): string {
  const lines = rows.map(({ program, kind, raw }) => {
    const of = (way: Way) => (raw[way].length === 0 ? Number.NaN : median(raw[way]));
    const ns = (way: Way) => (Number.isNaN(of(way)) ? "-" : of(way).toFixed(1)).padStart(11);
    return [
      program.padEnd(13),
      kind.padEnd(5),
      ...WAYS.map(ns),
      `${(of("jit") / of("native")).toFixed(2)} (aim ${AIM[kind]})`.padStart(15),
      (of("jit") / of("scalar")).toFixed(2).padStart(11),
      (of("interpreter") / of("jit")).toFixed(0).padStart(16),
    ].join(" ");
  });
  const head = [
    `${"".padEnd(19)}${"nanoseconds per run".padStart(60)}`,
    [
      "program".padEnd(13),
      "kind ",
      ...WAYS.map((way) => way.padStart(11)),
      "jit/native".padStart(15),
      "jit/scalar".padStart(11),
      "interpreter/jit".padStart(16),
    ].join(" "),
  ];
  return [...head, ...lines].join("\n");
}

const { values } = parseArgs({
  options: {
    rounds: { type: "string", default: "25" },
    json: { type: "string" },
    program: { type: "string" },
    folder: { type: "string", default: "" },
  },
});
if (values.program !== undefined) {
  console.log(JSON.stringify(measure(values.program, values.folder, Number(values.rounds))));
} else {
  const folder = mkdtempSync(join(tmpdir(), "bpfhv-bench-"));
  try {
    compile(folder);
    const rows = Object.keys(PROGRAMS).map((name) => measureAlone(name, folder, values.rounds));
    console.log(table(rows));
    if (values.json !== undefined) writeFileSync(values.json, JSON.stringify(rows));
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

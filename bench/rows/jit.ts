/**
 * Run time of programs: machine code by clang -O2, our WebAssembly, our interpreter, and for
 * comparison clang without vectors and the kernel's JIT. One C source for all. Each process
 * measures one program, because V8's code for a call depends on the other targets of its call
 * site. The ratio is to clang -O2.
 */
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { readElf } from "../../src/ebpf/elf-reader.ts";
import { LinearMemory } from "../../src/ebpf/jit/linear-memory.ts";
import { createRunner, type RunnerName } from "../../src/ebpf/runners.ts";
import { BpfMemory, bpfProblem, loadSocketFilter, testRun } from "../../src/os/bpf.ts";
import { findClang } from "../clang/devices.ts";
import type { Bench, Result, Sample, SampleOptions } from "../harness/bench.ts";
import { digits, markdown } from "../harness/report.ts";
import { median } from "../harness/statistics.ts";

const SOURCE = fileURLToPath(new URL("../../../bench/jit/programs.c", import.meta.url));
const BASE = 0x1_0000_0000;
const MEMORY = 8192;
/**
 * Approximate nanoseconds of one measurement: less than a time slice, so that few are interrupted.
 */
const BUDGET = 2e6;
/** The interpreter gets this part of the runs. */
const INTERPRETER_SHARE = 0.01;
/** Milliseconds after which V8 has optimised a program, in its own threads. */
const WARM = { quick: 100, full: 1500 } as const;
/** Turns of all ways in a process. */
const TURNS = { quick: 2, full: 9 } as const;
/**
 * Limits as multiples of native code. clang vectorises `wide`, and the JIT
 * does not: no ring format has such a loop.
 */
export const AIM = { short: 3, long: 1.5, wide: 6 } as const;

export const PROGRAMS: Readonly<Record<string, keyof typeof AIM>> = {
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

/** Compiles once for all processes of a run, which share TMPDIR. */
function compile(): string {
  const folder = join(tmpdir(), "jit");
  const object = join(folder, "programs.o");
  if (existsSync(object)) return folder;
  mkdirSync(folder, { recursive: true });
  clang(["-O2", "-o", join(folder, "native"), SOURCE]);
  const scalar = ["-fno-vectorize", "-fno-slp-vectorize"];
  clang(["-O2", ...scalar, "-o", join(folder, "scalar"), SOURCE]);
  clang(["-O2", "-target", "bpf", "-mcpu=v3", "-c", "-o", object, SOURCE]);
  return folder;
}

function clang(args: readonly string[]): void {
  const { status, error, stderr } = spawnSync("clang", args, { encoding: "utf8" });
  if (error !== undefined || status !== 0) {
    throw new Error(`clang ${args.join(" ")}: ${error?.message ?? stderr}`);
  }
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

function sample(program: string, { quick }: SampleOptions): Sample {
  const folder = compile();
  const { code } = readElf(readFileSync(join(folder, "programs.o"))).find(
    ({ name }) => name === program,
  )!;
  const jit = engineRunner("jit", code);
  const interpreter = engineRunner("interpreter", code);
  const native = nativeRunner(join(folder, "native"), program);
  const runners: Readonly<Record<Way, Runner | undefined>> = {
    ...{ native, jit, interpreter, kernel: kernelRunner(code) },
    scalar: nativeRunner(join(folder, "scalar"), program),
  };
  const until = Date.now() + WARM[quick ? "quick" : "full"];
  while (Date.now() < until) jit(50);
  for (let n = 0; n < 20; n++) interpreter(5);
  const each = median(Array.from({ length: 9 }, () => jit(50).nanoseconds / 50));
  const runs = Math.max(4, Math.round(BUDGET / each));
  const times: Record<Way | "again", number[]> = {
    ...{ native: [], scalar: [], kernel: [], jit: [], interpreter: [], again: [] },
  };
  for (let turn = 0; turn < TURNS[quick ? "quick" : "full"]; turn++) {
    const results = new Map<string, number>();
    for (const way of WAYS) {
      const count = way === "interpreter" ? Math.ceil(runs * INTERPRETER_SHARE) : runs;
      const result = runners[way]?.(count);
      if (result === undefined) continue;
      times[way].push(result.nanoseconds / count);
      results.set(way, result.r0);
    }
    times.again.push(native(runs).nanoseconds / runs);
    // A program's result does not depend on the number of its runs.
    if (new Set(results.values()).size > 1) throw new Error(`${program}: ${[...results]}`);
  }
  const measured = WAYS.filter((way) => times[way].length > 0);
  return {
    values: Object.fromEntries(measured.map((way) => [`${program}/${way}`, median(times[way])])),
    controls: { [`${program}/native`]: [median(times.native), median(times.again)] },
    facts: { clang: /version (\S+)/.exec(findClang()?.version ?? "")?.[1] ?? "unknown" },
  };
}

function table({ rows }: Result): string {
  const find = (program: string, way: Way) => rows.find(({ name }) => name === `${program}/${way}`);
  return markdown([
    [
      ...["", "clang -O2", "no vectors", "kernel", "WebAssembly", "to clang -O2", "aim"],
      "interpreter",
    ],
    ...Object.entries(PROGRAMS).map(([program, kind]) => {
      const ns = (way: Way) => digits(find(program, way)?.value ?? Number.NaN, 2);
      const jit = find(program, "jit");
      const ratio = `${(jit?.ratio ?? Number.NaN).toFixed(2)}${jit?.counted ? "" : " (not counted)"}`;
      return [
        ...[program, ns("native"), ns("scalar"), ns("kernel"), ns("jit")],
        ...[ratio, String(AIM[kind]), ns("interpreter")],
      ];
    }),
  ]);
}

export const bench: Bench = {
  name: "jit",
  about: "nanoseconds per run of programs: clang -O2, our WebAssembly, our interpreter",
  rounds: 5,
  limit: 0.15,
  seconds: 30,
  parts: Object.keys(PROGRAMS),
  rows: Object.entries(PROGRAMS).flatMap(([program, kind]) =>
    WAYS.map((way) => ({
      ...{ name: `${program}/${way}`, unit: "ns", control: `${program}/native` },
      ...(way === "native" ? {} : { baseline: `${program}/native` }),
      ...(way === "jit" ? { aim: { of: "ratio", most: AIM[kind] } as const } : {}),
    })),
  ),
  problem: () =>
    findClang() === undefined ? "no clang that makes eBPF: apt-get install clang" : undefined,
  sample,
  tables: { "": table },
};

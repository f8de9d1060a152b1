/**
 * Run time of programs: machine code by clang -O2, our WebAssembly, our interpreter. One C source for all, taken in
 * turns, medians of the rounds.
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
import type { Engine } from "../src/ebpf/engine.ts";
import { createEngine, type EngineName } from "../src/ebpf/engines.ts";
import { LinearMemory } from "../src/ebpf/jit/linear-memory.ts";

const SOURCE = fileURLToPath(new URL("../../bench/jit/programs.c", import.meta.url));
const BASE = 0x1_0000_0000;
const MEMORY = 8192;
/** Nanoseconds that one measurement takes, about: shorter than a time slice, so that few are interrupted. */
const BUDGET = 2e6;
/** The interpreter gets this part of the runs. */
const INTERPRETER_SHARE = 0.01;
/** Milliseconds until V8 has surely optimised a program, in its own threads. */
const WARM = 1500;
const AIM = { short: 3, long: 1.5 } as const;

const PROGRAMS: Readonly<Record<string, keyof typeof AIM>> = {
  checksum20: "short",
  classify: "short",
  publish: "short",
  fnv4096: "long",
  xorshift: "long",
  checksum4096: "long",
  sieve: "long",
};

/** A way to run a program: nanoseconds for `runs` of them, and the low half of the last R0. */
type Runner = (runs: number) => { nanoseconds: number; r0: number };

function compile(folder: string): { native: string; object: string } {
  const native = join(folder, "native");
  const object = join(folder, "programs.o");
  clang(["-O2", "-o", native, SOURCE]);
  clang(["-O2", "-target", "bpf", "-mcpu=v3", "-c", "-o", object, SOURCE]);
  return { native, object };
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

function engineRunner(engine: EngineName, code: Uint8Array): Runner {
  const memory = new LinearMemory(MEMORY);
  const bytes = memory.allocate(MEMORY, 64);
  for (let i = 0; i < MEMORY; i++) bytes[i] = i * 31 + 7;
  const regions = [{ name: "memory", base: BASE, bytes }];
  const machine = createEngine(engine, code, { regions, memory, stepLimit: 1e9 });
  return (runs) => {
    const start = process.hrtime.bigint();
    const r0 = repeat(machine, runs);
    return { nanoseconds: Number(process.hrtime.bigint() - start), r0 };
  };
}

function repeat(machine: Engine, runs: number): number {
  let r0 = 0;
  for (let n = 0; n < runs; n++) r0 = machine.call(BASE);
  return r0;
}

function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[values.length >> 1]!;
}

interface Row {
  readonly program: string;
  readonly kind: keyof typeof AIM;
  /** Nanoseconds per run, by round. */
  readonly raw: Readonly<Record<"native" | EngineName, number[]>>;
}

function measure(program: string, native: string, code: Uint8Array, rounds: number): Row {
  const runners = {
    native: nativeRunner(native, program),
    jit: engineRunner("jit", code),
    interpreter: engineRunner("interpreter", code),
  };
  const until = Date.now() + WARM;
  while (Date.now() < until) runners.jit(50);
  for (let n = 0; n < 20; n++) runners.interpreter(5);
  const each = median(Array.from({ length: 9 }, () => runners.jit(50).nanoseconds / 50));
  const runs = Math.max(4, Math.round(BUDGET / each));
  const raw: Row["raw"] = { native: [], jit: [], interpreter: [] };
  for (let round = 0; round < rounds; round++) {
    const results = new Map<string, number>();
    for (const name of ["native", "jit", "interpreter"] as const) {
      const count = name === "interpreter" ? Math.ceil(runs * INTERPRETER_SHARE) : runs;
      const { nanoseconds, r0 } = runners[name](count);
      raw[name].push(nanoseconds / count);
      results.set(name, r0);
    }
    // What programs return does not depend on how often they have run.
    if (new Set(results.values()).size > 1) throw new Error(`${program}: ${[...results]}`);
  }
  return { program, kind: PROGRAMS[program]!, raw };
}

function table(rows: readonly Row[]): string {
  const cells = rows.map(({ program, kind, raw }) => {
    const [native, jit, interpreter] = [raw.native, raw.jit, raw.interpreter].map(median);
    const ratio = jit! / native!;
    return [
      program.padEnd(14),
      kind.padEnd(6),
      native!.toFixed(1).padStart(10),
      jit!.toFixed(1).padStart(10),
      interpreter!.toFixed(0).padStart(12),
      `${ratio.toFixed(2)} (aim ${AIM[kind]})`.padStart(16),
      (interpreter! / jit!).toFixed(0).padStart(18),
    ].join(" ");
  });
  const head =
    "program        kind    native ns     jit ns  interpreter       jit/native  interpreter/jit";
  return [head, ...cells].join("\n");
}

const { values } = parseArgs({
  options: { rounds: { type: "string", default: "25" }, json: { type: "string" } },
});
const folder = mkdtempSync(join(tmpdir(), "bpfhv-bench-"));
try {
  const { native, object } = compile(folder);
  const rows = readElf(readFileSync(object)).map(({ name, code }) =>
    measure(name, native, code, Number(values.rounds)),
  );
  console.log(table(rows));
  if (values.json !== undefined) writeFileSync(values.json, JSON.stringify(rows));
} finally {
  rmSync(folder, { recursive: true, force: true });
}

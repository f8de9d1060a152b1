/**
 * Our compiler beside clang -O2 -mcpu=v3 on sring's HELPERFREE programs for 256 buffers: instructions, and
 * instructions executed in one call that finds one packet of work. `node dist/bench/compiler-vs-clang.js`
 */
import { execFileSync, spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { PROGRAM_IDS } from "../src/abi/index.ts";
import { sringContextSize } from "../src/devices/sring/layout.ts";
import { sringPrograms } from "../src/devices/sring/programs.ts";
import { readElf } from "../src/ebpf/elf-reader.ts";
import { EbpfError } from "../src/ebpf/errors.ts";
import { Interpreter } from "../src/ebpf/interpreter.ts";

const BUFS = 256;
const BASE = 0x10_0000;
const NAMES = ["txp", "txc", "txi", "txr", "rxp", "rxc", "rxi", "rxr"] as const;
const SOURCE = fileURLToPath(new URL("../../bench/sring.c", import.meta.url));

/** A context with one buffer to publish, and one completed, of two published. */
function context(): Uint8Array {
  const bytes = new Uint8Array(sringContextSize(BUFS));
  const view = new DataView(bytes.buffer);
  for (const [offset, value] of [
    ...[16, 28, 2224, 2228].map((at) => [at, 1] as const),
    [2096, 2] as const,
  ]) {
    view.setUint32(offset, value, true);
  }
  return bytes;
}

/** The smallest limit of steps that is enough: what one call executes. */
function executed(code: Uint8Array): { steps: number; bytes: Uint8Array } {
  for (let steps = 1; ; steps++) {
    const bytes = context();
    const regions = [{ name: "context", base: BASE, bytes }];
    try {
      new Interpreter(code, { regions, stepLimit: steps }).run(BigInt(BASE));
      return { steps, bytes };
    } catch (error) {
      if (!(error instanceof EbpfError) || error.code !== "LIMIT") throw error;
    }
  }
}

function clang(): { version: string; programs: ReturnType<typeof readElf> } | undefined {
  const tool = ["clang-19", "clang"].find((name) => spawnSync(name, ["--version"]).status === 0);
  if (tool === undefined) return undefined;
  const folder = mkdtempSync(join(tmpdir(), "bpfhv-bench-"));
  try {
    const object = join(folder, "sring.o");
    const flags = [
      "-O2",
      "-target",
      "bpf",
      "-mcpu=v3",
      `-DBUFS=${BUFS}`,
      "-c",
      SOURCE,
      "-o",
      object,
    ];
    execFileSync(tool, flags);
    const version = execFileSync(tool, ["--version"], { encoding: "utf8" }).split("\n")[0]!;
    return { version, programs: readElf(readFileSync(object)) };
  } finally {
    rmSync(folder, { recursive: true });
  }
}

const theirs = clang();
if (theirs === undefined) console.log("no clang here: nothing to compare with");
else {
  const { code } = sringPrograms({ bufs: BUFS, form: "helperfree" });
  const total = [0, 0, 0, 0];
  console.log(theirs.version);
  console.log("program  instructions: ours clang  executed: ours clang  same effect");
  for (const name of NAMES) {
    const mine = code.get(PROGRAM_IDS[name])!;
    const other = theirs.programs.find((p) => p.name === name)!.code;
    const [a, b] = [executed(mine), executed(other)];
    const same = Buffer.compare(a.bytes, b.bytes) === 0;
    const row = [mine.length / 8, other.length / 8, a.steps, b.steps];
    for (const [i, n] of row.entries()) total[i]! += n;
    console.log(name.padEnd(8), ...row.map((n) => String(n).padStart(8)), same ? "yes" : "NO");
    if (!same) process.exitCode = 1;
  }
  console.log("total   ", ...total.map((n) => String(n).padStart(8)));
}

/** `bpfhv conformance`: eBPF conformance cases, run here or driven by the suite's own runner. */
import { readdirSync, readFileSync } from "node:fs";
import { basename, join } from "node:path";
import { text } from "node:stream/consumers";
import { Command, Option } from "commander";
import { CaseError } from "../ebpf/conformance/case.ts";
import { outcome, RUNNERS } from "../ebpf/conformance/engines.ts";
import { OWN_CASES, ownCasesOf } from "../ebpf/conformance/own-cases.ts";
import { runCase, type Verdict } from "../ebpf/conformance/run.ts";
import { readElf } from "../ebpf/elf-reader.ts";
import { EbpfError } from "../ebpf/errors.ts";
import { ENCODINGS, type Group } from "../ebpf/opcode.ts";
import type { RunnerName } from "../ebpf/runners.ts";
import { failure, Usage } from "../errors.ts";
import { bytesFromHex } from "./program-input.ts";

interface ConformanceFlags {
  cases?: string;
  plugin: boolean;
  elf: boolean;
  engine: RunnerName;
  group?: string[];
  json: boolean;
}

const GROUPS = [...new Set(ENCODINGS.map((e) => e.group))];

export function conformanceCommand(): Command {
  return new Command("conformance")
    .description("run the built-in eBPF conformance cases, a folder of them, or act as a plugin")
    .argument("[memory...]", "with --plugin: initial memory as hexadecimal bytes")
    .option("--cases <folder>", "cases to run instead: the suite's *.data, or *.txt as ours are")
    .option("--plugin", "read one program in hexadecimal from standard input, print r0", false)
    .option("--elf", "with --plugin: the program is an ELF object", false)
    .addOption(new Option("--engine <name>").choices(Object.keys(RUNNERS)).default("interpreter"))
    .addOption(
      new Option("--group <name...>", "only cases that use these groups of instructions").choices(
        GROUPS,
      ),
    )
    .option("--json", "as JSON", false)
    .action((memory: string[], flags: ConformanceFlags) => {
      if (flags.plugin && flags.cases !== undefined) {
        throw new Usage("give either --cases or --plugin, not both");
      }
      if (!flags.plugin && memory.length > 0) {
        throw new Usage(`memory ("${memory[0]}") goes with --plugin; a folder goes with --cases`);
      }
      return flags.plugin ? plugin(memory, flags) : runFolder(flags.cases ?? OWN_CASES, flags);
    });
}

/** The interface of the suite's runner: r0 in hexadecimal, or an error and status 1. */
async function plugin(memory: readonly string[], flags: ConformanceFlags): Promise<void> {
  const input = await text(process.stdin);
  try {
    const bytes = bytesFromHex(input);
    const code = flags.elf ? readElf(bytes)[0]!.code : bytes;
    const result = outcome(RUNNERS[flags.engine], code, memoryOf(memory));
    if ("refused" in result) throw failure(result.refused);
    process.stdout.write(`${result.r0.toString(16)}\n`);
  } catch (error) {
    if (error instanceof EbpfError) throw failure(error.message);
    throw error;
  }
}

/** The runner omits the argument, or passes an empty one, if there is no memory. */
function memoryOf(words: readonly string[]): Uint8Array {
  const text = words.join(" ").trim();
  return text === "" ? new Uint8Array() : bytesFromHex(text);
}

function runFolder(folder: string, flags: ConformanceFlags): void {
  const verdicts = caseFiles(folder)
    .flatMap(casesOf)
    .map(({ name, text }) => ({ name, ...runCase(text, RUNNERS[flags.engine]) }))
    .filter((v) => flags.group === undefined || v.groups.some((g) => flags.group!.includes(g)));
  if (verdicts.length === 0) throw failure(`${folder} holds no cases (*.data, *.txt) of that kind`);
  const count = {
    passed: verdicts.filter((v) => v.passed).length,
    failed: verdicts.filter((v) => !v.passed && !v.skipped).length,
    skipped: verdicts.filter((v) => v.skipped).length,
  };
  report(verdicts, count, flags);
  // A run in which nothing was judged proves nothing.
  if (count.failed > 0 || count.passed === 0) process.exitCode = 1;
}

/** Case files of a folder and the folders in it, sorted. */
function caseFiles(folder: string): string[] {
  try {
    return readdirSync(folder, { recursive: true, encoding: "utf8" })
      .filter((file) => /\.(data|txt)$/.test(file))
      .sort()
      .map((file) => join(folder, file));
  } catch (error) {
    throw failure(`cannot read ${folder}: ${(error as NodeJS.ErrnoException).code}`);
  }
}

/** A `.data` file is one case, a `.txt` file one a line. */
function casesOf(file: string): { readonly name: string; readonly text: string }[] {
  if (file.endsWith(".data")) {
    return [{ name: basename(file, ".data"), text: readFileSync(file, "utf8") }];
  }
  try {
    return ownCasesOf(file, basename(file, ".txt"));
  } catch (error) {
    throw error instanceof CaseError ? failure(`${file}: ${error.message}`) : error;
  }
}

type NamedVerdict = Verdict & { readonly name: string; readonly groups: readonly Group[] };

interface Count {
  readonly passed: number;
  readonly failed: number;
  readonly skipped: number;
}

/**
 * The last line is what the suite's own runner closes with, so what is skipped is counted before
 * it.
 */
function report(verdicts: readonly NamedVerdict[], count: Count, flags: ConformanceFlags): void {
  if (flags.json) {
    const { engine } = flags;
    process.stdout.write(`${JSON.stringify({ engine, ...count, cases: verdicts }, null, 2)}\n`);
    return;
  }
  for (const { name, skipped, detail } of verdicts.filter((v) => !v.passed)) {
    process.stdout.write(`${skipped ? "SKIP" : "FAIL"} ${name}: ${detail}\n`);
  }
  if (count.skipped > 0) process.stdout.write(`${count.skipped} skipped\n`);
  process.stdout.write(`${count.passed} passed, ${count.failed} failed\n`);
}

/** `bpfhv compile`: guest programs in TypeScript to eBPF, as an object, hexadecimal or text. */
import { readFileSync, writeFileSync } from "node:fs";
import { basename, dirname, relative } from "node:path";
import { Command, Option } from "commander";
import type * as abi from "../abi/index.ts";
import {
  CompileError,
  compileSource,
  importsOf,
  isLanguage,
  parseSource,
  programFiles,
  readFromDisk,
  type Source,
} from "../compiler/index.ts";
import { loadImport } from "../compiler/modules/load.ts";
import { compilePrograms } from "../devices/program-set.ts";
import { writeElf } from "../ebpf/elf-writer.ts";
import type { Program } from "../ebpf/program.ts";
import { disassembleProgram } from "../ebpf/text.ts";
import { failure, Usage, whole } from "../errors.ts";
import { DEFAULT_BUFS } from "../nic/config.ts";
import { DEVICE_WORDS, loadDevice, requireSize } from "./device-option.ts";

interface CompileFlags {
  device?: string;
  bufs: number;
  define: Record<string, unknown>;
  form: abi.ProgramForm;
  to: "asm" | "hex" | "elf";
  output?: string;
  json: boolean;
  module: boolean;
}

const bufs = whole("--bufs", 16, 8192);

export function compileCommand(): Command {
  return new Command("compile")
    .description("compile guest programs written in TypeScript (docs/compiler.md)")
    .argument("[file]", "a file with exported programs")
    .option("--device <name>", `without a file, its programs; ${DEVICE_WORDS}`)
    .option("--bufs <n>", "buffers per queue of the device", bufs, DEFAULT_BUFS)
    .option("--define <name=value>", "a value for a declared constant; may be repeated", define, {})
    .addOption(new Option("--form <form>").choices(["helperfree", "v1"]).default("helperfree"))
    .addOption(new Option("--to <format>").choices(["asm", "hex", "elf"]).default("asm"))
    .option("-o, --output <file>", "default: standard output")
    .option("--json", "programs with code and source lines, as JSON", false)
    .option("--module", "the unspecialised text as a JavaScript module, for bundlers", false)
    .action(async (file: string | undefined, flags: CompileFlags) => {
      if (flags.to === "elf" && flags.output === undefined && process.stdout.isTTY) {
        throw new Usage("--to elf is binary: give -o FILE, or redirect the output");
      }
      const { device } = flags;
      if ((file === undefined) === (device === undefined)) throw new Usage("give FILE or --device");
      const result = await refusing(file ?? device!, () =>
        file === undefined ? compileDevice(device!, flags) : compileFile(file, flags),
      );
      if (flags.output === undefined) process.stdout.write(result);
      else write(flags.output, result);
    });
}

type Output = string | Uint8Array;

async function compileFile(file: string, flags: CompileFlags): Promise<Output> {
  const source = parseSource(file, read(file), readFromDisk);
  requireDeclared(source, flags.define);
  if (flags.module) return moduleOf(source);
  const given = { ...(await imported(source)), form: flags.form, ...flags.define };
  return output(compileSource(source, given), flags);
}

/** @throws CommandError */
async function compileDevice(device: string, flags: CompileFlags): Promise<Output> {
  if (flags.module || Object.keys(flags.define).length > 0) {
    throw new Usage("--module and --define go with a file: a device has its own constants");
  }
  const { format } = await loadDevice(device);
  requireSize(format, flags.bufs);
  if (typeof format.programs === "function") {
    throw failure(`${format.name} has ready programs: there is nothing to compile`);
  }
  return output(compilePrograms(format.programs, flags), flags);
}

/** A value for a name that nothing asks for is a name mistyped. @throws Usage */
function requireDeclared(source: Source, define: Record<string, unknown>): void {
  const files = programFiles(source);
  const known = new Set(
    files.flatMap((file) => [...file.declared.keys(), ...importsOf(file).map((i) => i.local)]),
  );
  for (const name of Object.keys(define)) {
    if (known.has(name)) continue;
    const list = [...new Set(files.flatMap((file) => [...file.declared.keys()]))].join(", ");
    throw new Usage(`--define ${name}: ${source.file} declares ${list || "no constant"}`);
  }
}

function define(text: string, before: Record<string, unknown>): Record<string, unknown> {
  const [, name, value] = /^([A-Za-z_$][\w$]*)=(.+)$/.exec(text) ?? [];
  if (name === undefined || value === undefined)
    throw new Usage(`--define ${text}: write NAME=VALUE`);
  if (/^-?(\d+|0x[\da-f]+)n$/i.test(value))
    return { ...before, [name]: BigInt(value.slice(0, -1)) };
  if (/^-?\d+$|^0x[\da-f]+$/i.test(value)) return { ...before, [name]: Number(value) };
  return { ...before, [name]: value === "true" ? true : value === "false" ? false : value };
}

function write(file: string, content: string | Uint8Array): void {
  try {
    writeFileSync(file, content);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    throw failure(`cannot write ${file} (${code}): check the path and its permissions`);
  }
}

function read(file: string): string {
  try {
    return readFileSync(file, "utf8");
  } catch (error) {
    throw failure(`${file} cannot be read: ${(error as Error).message}`);
  }
}

/**
 * Values of what the program's files import. Files that are
 * compiled are not loaded: they need not run.
 */
async function imported(source: Source): Promise<Record<string, unknown>> {
  const given = new Map<string, unknown>();
  const files = programFiles(source);
  for (const file of files) {
    for (const wanted of importsOf(file)) {
      const { module, name, local } = wanted;
      if (isLanguage(module)) continue;
      const target = file.project.follow(file, wanted);
      if (target !== undefined && files.includes(target)) continue;
      const loaded = await load(file.file, module);
      const [key, value] = name === "*" ? [local, loaded] : [name, loaded[name]];
      if (given.has(key) && given.get(key) !== value) {
        throw failure(`${key} means two things in the files of ${source.file}: rename one of them`);
      }
      given.set(key, value);
    }
  }
  return Object.fromEntries(given);
}

async function load(from: string, module: string): Promise<Record<string, unknown>> {
  try {
    return await loadImport(from, module);
  } catch (error) {
    throw failure(`${from}: "${module}" cannot be loaded: ${(error as Error).message}`);
  }
}

/**
 * The text as data, with those of the files that it is compiled with: `parseSource(file, text,
 * (path) => files[path])` takes it if the files themselves are not shipped.
 */
function moduleOf(source: Source): string {
  const [, ...others] = programFiles(source);
  const from = dirname(source.file);
  const files = Object.fromEntries(others.map(({ file, text }) => [relative(from, file), text]));
  const parts = { file: basename(source.file), text: source.text, files };
  return Object.entries(parts)
    .map(([name, value]) => `export const ${name} = ${JSON.stringify(value)};\n`)
    .join("");
}

function output(programs: readonly Program[], flags: CompileFlags): Output {
  const hex = (program: Program): string => Buffer.from(program.code).toString("hex");
  if (flags.json) {
    const rows = programs.map((p) => ({
      ...{ name: p.name, instructions: p.code.length / 8, code: hex(p) },
      lines: [...(p.lines ?? [])].map(([slot, line]) => ({ slot, ...line })),
    }));
    return `${JSON.stringify(rows, null, 2)}\n`;
  }
  if (flags.to === "elf") return writeElf(programs);
  const text = (p: Program): string =>
    flags.to === "hex" ? hex(p) : disassembleProgram(p, { source: true }).join("\n");
  return `${programs.map((p) => `; ${p.name}\n${text(p)}`).join("\n\n")}\n`;
}

async function refusing<T>(file: string, run: () => Promise<T>): Promise<T> {
  try {
    return await run();
  } catch (error) {
    if (error instanceof CompileError) throw failure(error.message);
    if (error instanceof RangeError) throw failure(`${file}: ${error.message}`);
    throw error;
  }
}

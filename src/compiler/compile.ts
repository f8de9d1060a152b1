/**
 * The compiler's front door: the text of a file with guest programs, and values for its free names, to programs.
 *
 *     text ── parse.ts ──> tree ── lower.ts ──> SSA ── passes/ ──> SSA ── machine/ ──> eBPF
 */
import { existsSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import type { Program, SourceLine } from "../ebpf/program.ts";
import type { Func } from "./ir.ts";
import { lower } from "./lower.ts";
import { allocate } from "./machine/allocate.ts";
import { encode } from "./machine/layout.ts";
import { select } from "./machine/select.ts";
import { checkStack } from "./machine/stack.ts";
import type { Source } from "./parse.ts";
import { optimise } from "./passes/index.ts";
import { type Project, parseSource, programsIn, readFromDisk } from "./project.ts";

/** Values for `declare const` and imported names; layouts included. */
export type Given = Readonly<Record<string, unknown>>;

/** The functions of a program in their final form: its own first, and those that it really calls. */
export function optimised(source: Source, name: string, given: Given): Func[] {
  const made = lower(source, name, given);
  for (const func of made) optimise(func);
  const called = new Set([made[0]!]);
  for (const func of called) {
    for (const { values } of func.blocks)
      for (const v of values) if (v.callee) called.add(v.callee);
  }
  return [...called];
}

/** @throws CompileError with the place of what cannot be compiled */
export function compileFunction(source: Source, name: string, given: Given): Program {
  const { project } = source;
  const functions = optimised(source, name, given);
  const machine = functions.map((func) => {
    const selected = select(func, functions);
    allocate(selected, () => project.placeAt(func.at));
    return selected;
  });
  checkStack(machine, () => project.placeAt(functions[0]!.at));
  const { code, positions } = encode(machine);
  return { name, code, lines: linesOf(project, positions) };
}

/** Compiles all exported functions of a file, in order. */
export function compileSource(source: Source, given: Given): Program[] {
  return programsIn(source).map((name) => compileFunction(source, name, given));
}

function linesOf(
  project: Project,
  positions: ReadonlyMap<number, number>,
): Map<number, SourceLine> {
  const lines = new Map<number, SourceLine>();
  let last: SourceLine | undefined;
  for (const [slot, at] of positions) {
    const place = project.placeAt(at);
    if (place.line !== last?.line || place.file !== last.file) lines.set(slot, place);
    last = place;
  }
  return lines;
}

const parsed = new Map<string, Source>();

/**
 * The parsed text of `name` beside the module at `base` (its `import.meta.url`), with the files that it imports
 * from. Of a module in `dist/src`, the text stands in `src`: packages ship both. Parsed once per process.
 */
export function sourceBeside(base: string, name: string): Source {
  const beside = fileURLToPath(new URL(name, base));
  const known = parsed.get(beside);
  if (known !== undefined) return known;
  const file = existsSync(beside) ? beside : beside.replace(/\/dist\/src\//, "/src/");
  const source = parseSource(file, readFileSync(file, "utf8"), readFromDisk);
  parsed.set(beside, source);
  return source;
}

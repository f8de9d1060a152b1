/**
 * Entry of the compiler: from the text of a file with guest programs, and
 * values for its free names, to programs.
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
import { type Project, parseSource, programsIn, type ReadText, readFromDisk } from "./project.ts";

/** Values for `declare const` and imported names, including layouts. */
export type Given = Readonly<Record<string, unknown>>;

/**
 * Returns the optimised functions of a program: its own
 * first, then those that it calls out of line.
 */
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

/** @throws CompileError with the place of the error */
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

/** A parsed file, and what was read for it, by path: undefined for what is not there. */
interface Parsed {
  readonly source: Source;
  readonly texts: ReadonlyMap<string, string | undefined>;
}

const parsed = new Map<string, Parsed>();

/**
 * Returns the parsed text of the guest programs at `url`, with the files that it imports from.
 * Parsed once, until `forgetChangedSources` finds other text. The URL may name the built file
 * (`.js`): the text is that of the .ts beside it. For a module in `dist/src`, the text is in `src`:
 * the package has both.
 */
export function sourceAt(url: string): Source {
  const known = parsed.get(url);
  if (known !== undefined) return known.source;
  const path = fileURLToPath(url).replace(/\.(m?)js$/, ".$1ts");
  const file = existsSync(path) ? path : path.replace(/\/dist\/src\//, "/src/");
  const texts = new Map<string, string | undefined>();
  const read: ReadText = (path) => {
    const text = readFromDisk(path);
    texts.set(path, text);
    return text;
  };
  const text = readFileSync(file, "utf8");
  texts.set(file, text);
  const source = parseSource(file, text, read);
  parsed.set(url, { source, texts });
  return source;
}

/**
 * Call it before a module is loaded again: its guest programs must be of the same text as its host
 * half.
 */
export function forgetChangedSources(): void {
  for (const [url, { texts }] of parsed) {
    if ([...texts].some(([path, text]) => readFromDisk(path) !== text)) parsed.delete(url);
  }
}

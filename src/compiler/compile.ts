/**
 * The compiler's front door: the text of a file with guest programs, and values for its free names, to programs.
 *
 *     text ── parse.ts ──> tree ── lower.ts ──> SSA ── passes/ ──> SSA ── machine/ ──> eBPF
 */
import { existsSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import type { Program, SourceLine } from "../ebpf/program.ts";
import { lower } from "./lower.ts";
import { allocate } from "./machine/allocate.ts";
import { encode } from "./machine/layout.ts";
import { select } from "./machine/select.ts";
import { parseSource, placeOf, type Source } from "./parse.ts";
import { optimise } from "./passes/index.ts";

/** Values for `declare const` and imported names; layouts included. */
export type Given = Readonly<Record<string, unknown>>;

/** @throws CompileError with the place of what cannot be compiled */
export function compileFunction(source: Source, name: string, given: Given): Program {
  const func = lower(source, name, given);
  optimise(func);
  const machine = select(func);
  const node = source.functions.get(name)!;
  allocate(machine, () => placeOf(source, node.start));
  const { code, positions } = encode(machine);
  return { name, code, lines: linesOf(source, positions) };
}

/** Compiles all exported functions of a file, in order. */
export function compileSource(source: Source, given: Given): Program[] {
  return source.exported.map((name) => compileFunction(source, name, given));
}

function linesOf(source: Source, positions: ReadonlyMap<number, number>): Map<number, SourceLine> {
  const lines = new Map<number, SourceLine>();
  let last = -1;
  for (const [slot, at] of positions) {
    const place = placeOf(source, at);
    if (place.line !== last) lines.set(slot, place);
    last = place.line;
  }
  return lines;
}

const parsed = new Map<string, Source>();

/**
 * The parsed text of `name` beside the module at `base` (its `import.meta.url`). Of a module in `dist/src`, the
 * text stands in `src`: packages ship both. Parsed once per process.
 */
export function sourceBeside(base: string, name: string): Source {
  const beside = fileURLToPath(new URL(name, base));
  const known = parsed.get(beside);
  if (known !== undefined) return known;
  const file = existsSync(beside) ? beside : beside.replace(/\/dist\/src\//, "/src/");
  const source = parseSource(file, readFileSync(file, "utf8"));
  parsed.set(beside, source);
  return source;
}

/**
 * Parses source text to a syntax tree. Only this file uses the parser (oxc-parser). The result is
 * ESTree with TypeScript's additions, seen through one loose node type.
 */
import { parseSync } from "oxc-parser";
import type { SourceLine } from "../ebpf/program.ts";
import { CompileError, type CompileErrorCode } from "./errors.ts";
import { tooDeep } from "./nesting.ts";
import type { Project } from "./project.ts";

/** A node of the tree. Offsets are UTF-16 positions in the source. */
export interface Node {
  readonly type: string;
  readonly start: number;
  readonly end: number;
  // biome-ignore lint/suspicious/noExplicitAny: ESTree has a hundred shapes; readers check `type`.
  readonly [key: string]: any;
}

/** A name imported from another module. */
export interface Import {
  readonly module: string;
  /** The exported name; "*" for the whole module. */
  readonly name: string;
  /** The local name. */
  readonly local: string;
  /** The module's name in the source. */
  readonly node: Node;
}

/** A parsed file: its declarations by name. */
export interface Source {
  readonly file: string;
  readonly text: string;
  /** The project that the file is compiled with. */
  readonly project: Project;
  /** Start of this file's positions among those of its project. */
  readonly start: number;
  readonly functions: ReadonlyMap<string, Node>;
  /** Exports, in order: names of its own, or what another module exports. */
  readonly exports: ReadonlyMap<string, string | Import>;
  /** Module-level constants: name to initialiser. */
  readonly constants: ReadonlyMap<string, Node>;
  /** `declare const x`: values given by specialisation. */
  readonly declared: ReadonlyMap<string, Node>;
  readonly imports: ReadonlyMap<string, Import>;
  /** `export default …`, which gives a program no name. */
  readonly defaultExport?: Node;
}

const SHOWN = 60;

/** Offsets of the lines of a file, computed at the first use. */
const starts = new WeakMap<object, number[]>();

function lineStarts(source: { readonly text: string }): number[] {
  let found = starts.get(source);
  if (found === undefined) {
    found = [0];
    const { text } = source;
    for (let i = text.indexOf("\n"); i >= 0; i = text.indexOf("\n", i + 1)) found.push(i + 1);
    starts.set(source, found);
  }
  return found;
}

/** Returns the place of a node, for errors and for the line table. */
export function placeOf(source: { file: string; text: string }, offset: number): SourceLine {
  const lines = lineStarts(source);
  let [line, above] = [0, lines.length];
  while (above - line > 1) {
    const middle = (line + above) >> 1;
    if (lines[middle]! <= offset) line = middle;
    else above = middle;
  }
  const start = lines[line]!;
  const text = source.text.slice(start, lines[line + 1]).trim();
  return { file: source.file, line: line + 1, column: offset - start + 1, text };
}

/** Returns an error at a node. */
export function errorAt(
  source: { file: string; text: string },
  node: { readonly start: number; readonly end: number },
  code: CompileErrorCode,
  reason: string,
  hint: string,
): CompileError {
  const text = source.text.slice(node.start, node.end).replace(/\s+/g, " ");
  const whole = text.replace(/^"(.*)"$/, "$1");
  const shown = whole.length > SHOWN ? `${whole.slice(0, SHOWN - 3)}...` : whole;
  return new CompileError(code, placeOf(source, node.start), reason, shown, hint);
}

/** @throws CompileError SYNTAX if the text is invalid TypeScript */
export function parseFile(file: string, text: string, project: Project, start: number): Source {
  // Semantic errors, too: of a name declared twice, the later one would apply silently.
  const options = { sourceType: "module", lang: "ts", showSemanticErrors: true } as const;
  const deep = tooDeep(text);
  if (deep !== null) throw errorAt({ file, text }, deep, "SYNTAX", deep.reason, deep.hint);
  const result = parseSync("guest.ts", text, options);
  const [problem] = result.errors;
  if (problem !== undefined) {
    const label = problem.labels[0] ?? { start: 0, end: 0 };
    throw errorAt({ file, text }, label, "SYNTAX", problem.message, "write valid TypeScript");
  }
  const tables = {
    file,
    text,
    functions: new Map<string, Node>(),
    exports: new Map<string, string | Import>(),
    constants: new Map<string, Node>(),
    declared: new Map<string, Node>(),
    imports: new Map<string, Import>(),
  };
  const program = result.program as unknown as Node;
  for (const statement of program.body as Node[]) collect(tables, statement);
  const defaultExport = (program.body as Node[]).find((s) => s.type === "ExportDefaultDeclaration");
  return { project, start, ...tables, ...(defaultExport ? { defaultExport } : {}) };
}

interface Tables {
  readonly file: string;
  readonly text: string;
  readonly functions: Map<string, Node>;
  readonly exports: Map<string, string | Import>;
  readonly constants: Map<string, Node>;
  readonly declared: Map<string, Node>;
  readonly imports: Map<string, Import>;
}

function collect(tables: Tables, statement: Node): void {
  if (statement.type === "ExportNamedDeclaration") {
    if (statement.declaration) {
      for (const name of declare(tables, statement.declaration)) tables.exports.set(name, name);
    } else if (statement.exportKind !== "type") collectExports(tables, statement);
  } else if (statement.type === "ImportDeclaration") {
    if (statement.importKind !== "type") collectImports(tables, statement);
  } else declare(tables, statement);
}

/** @returns the declared names that programs can use */
function declare(tables: Tables, node: Node): string[] {
  const { functions, constants, declared } = tables;
  if (node.type === "FunctionDeclaration") {
    if (functions.has(node.id.name)) {
      const reason = `two functions are called ${node.id.name}`;
      throw errorAt(tables, node.id, "SYNTAX", reason, "rename one of them");
    }
    functions.set(node.id.name, node);
    return [node.id.name];
  }
  if (node.type !== "VariableDeclaration" || node.kind !== "const") return [];
  return (node.declarations as Node[]).flatMap((d) => {
    if (d.id.type !== "Identifier") return [];
    if (d.init) constants.set(d.id.name, d.init);
    else if (node.declare) declared.set(d.id.name, d);
    return [d.id.name as string];
  });
}

/** `export { a, b as c };`, from another module or not */
function collectExports({ exports }: Tables, statement: Node): void {
  for (const s of statement.specifiers as Node[]) {
    if (s.exportKind === "type") continue;
    const [name, local] = [nameOf(s.exported), nameOf(s.local)];
    const { source } = statement;
    const { value: module } = source ?? {};
    exports.set(name, source ? { module, name: local, local: name, node: source } : local);
  }
}

function collectImports({ imports }: Tables, statement: Node): void {
  for (const s of statement.specifiers as Node[]) {
    if (s.importKind === "type") continue;
    const { source: node } = statement;
    const { name: local } = s.local;
    imports.set(local, { module: node.value, name: importedName(s), local, node });
  }
}

function importedName(specifier: Node): string {
  if (specifier.type === "ImportSpecifier") return nameOf(specifier.imported);
  return specifier.type === "ImportNamespaceSpecifier" ? "*" : "default";
}

/** Names in lists of imports and exports may be written as strings. */
const nameOf = (node: Node): string => node.name ?? node.value;

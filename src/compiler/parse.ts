/**
 * Source text to syntax tree. The only file that knows the parser (oxc-parser): what comes out is ESTree with
 * TypeScript's additions, seen through one loose node type.
 */
import { parseSync } from "oxc-parser";
import type { SourceLine } from "../ebpf/program.ts";
import { CompileError, type CompileErrorCode } from "./errors.ts";

/** A node of the tree. Offsets are UTF-16 positions in the source. */
export interface Node {
  readonly type: string;
  readonly start: number;
  readonly end: number;
  // biome-ignore lint/suspicious/noExplicitAny: ESTree is a union of a hundred shapes; each reader checks `type`.
  readonly [key: string]: any;
}

/** A parsed file: its declarations by name. */
export interface Source {
  readonly file: string;
  readonly text: string;
  readonly functions: ReadonlyMap<string, Node>;
  /** Names of the exported functions, in order. */
  readonly exported: readonly string[];
  /** Module-level constants: name to initialiser. */
  readonly constants: ReadonlyMap<string, Node>;
  /** `declare const x`: values that specialisation gives. */
  readonly declared: ReadonlyMap<string, Node>;
  /** Imported names, with their modules and the names there ("*" for namespaces). */
  readonly imports: ReadonlyMap<string, { readonly module: string; readonly name: string }>;
}

const SHOWN = 60;

/** The place of a node, for errors and for the line table. */
export function placeOf(source: { file: string; text: string }, offset: number): SourceLine {
  const before = source.text.slice(0, offset);
  const start = before.lastIndexOf("\n") + 1;
  const end = source.text.indexOf("\n", offset);
  let line = 1;
  for (let i = before.indexOf("\n"); i >= 0; i = before.indexOf("\n", i + 1)) line++;
  return {
    file: source.file,
    line,
    column: offset - start + 1,
    text: source.text.slice(start, end < 0 ? undefined : end).trim(),
  };
}

/** An error at a node. */
export function errorAt(
  source: { file: string; text: string },
  node: { readonly start: number; readonly end: number },
  code: CompileErrorCode,
  reason: string,
  hint: string,
): CompileError {
  const whole = source.text.slice(node.start, node.end).replace(/\s+/g, " ");
  const shown = whole.length > SHOWN ? `${whole.slice(0, SHOWN - 3)}...` : whole;
  return new CompileError(code, placeOf(source, node.start), reason, shown, hint);
}

/** @throws CompileError SYNTAX where the text is no TypeScript */
export function parseSource(file: string, text: string): Source {
  const result = parseSync("guest.ts", text, { sourceType: "module", lang: "ts" });
  const [problem] = result.errors;
  if (problem !== undefined) {
    const label = problem.labels[0] ?? { start: 0, end: 0 };
    throw errorAt({ file, text }, label, "SYNTAX", problem.message, "write valid TypeScript");
  }
  return declarations(file, text, result.program as unknown as Node);
}

function declarations(file: string, text: string, program: Node): Source {
  const functions = new Map<string, Node>();
  const exported: string[] = [];
  const constants = new Map<string, Node>();
  const declared = new Map<string, Node>();
  const imports = new Map<string, { module: string; name: string }>();
  for (const statement of program.body as Node[]) {
    const isExport = statement.type === "ExportNamedDeclaration" && statement.declaration;
    const node: Node = isExport ? statement.declaration : statement;
    if (node.type === "FunctionDeclaration") {
      functions.set(node.id.name, node);
      if (isExport) exported.push(node.id.name);
    } else if (node.type === "VariableDeclaration" && node.kind === "const") {
      for (const d of node.declarations as Node[]) {
        if (d.id.type !== "Identifier") continue;
        if (d.init) constants.set(d.id.name, d.init);
        else if (node.declare) declared.set(d.id.name, d);
      }
    } else if (node.type === "ImportDeclaration" && node.importKind !== "type") {
      for (const s of node.specifiers as Node[]) {
        if (s.importKind === "type") continue;
        imports.set(s.local.name, { module: node.source.value, name: importedName(s) });
      }
    }
  }
  return { file, text, functions, exported, constants, declared, imports };
}

function importedName(specifier: Node): string {
  if (specifier.type === "ImportSpecifier") return specifier.imported.name;
  return specifier.type === "ImportNamespaceSpecifier" ? "*" : "default";
}

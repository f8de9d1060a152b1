/**
 * The files of a program set: the compiled file, and those that it imports functions and
 * constants from by relative paths. A file is read only if the compiler needs something in
 * it that it was not given: modules of layouts and tables are not parsed. Positions of all
 * files are offsets in their concatenation.
 */
import { existsSync, readFileSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
import type { SourceLine } from "../ebpf/program.ts";
import type { CompileError } from "./errors.ts";
import { errorAt, type Import, type Node, parseFile, placeOf, type Source } from "./parse.ts";

/** Returns the text of a file by its path; undefined if there is none. */
export type ReadText = (path: string) => string | undefined;

/** Limits of the number and the length of files. */
const MAX_FILES = 64;
const MAX_LENGTH = 1 << 20;

/** True for the module that declares the language itself. */
export function isLanguage(module: string): boolean {
  return /(^|\/)compiler\/language(\.[jt]s)?$/.test(module);
}

/** Reads from disk. */
export const readFromDisk: ReadText = (path) =>
  existsSync(path) && statSync(path).isFile() ? readFileSync(path, "utf8") : undefined;

/** A function or constant, and the file that declares it. */
export interface Declaration {
  readonly source: Source;
  readonly name: string;
}

export class Project {
  readonly #read: ReadText;
  readonly #sources = new Map<string, Source>();
  /** Imports between files that were followed. */
  readonly #followed = new Map<Source, Set<Source>>();
  #end = 0;

  constructor(read: ReadText) {
    this.#read = read;
  }

  /** @throws CompileError SYNTAX */
  add(file: string, text: string): Source {
    const source = parseFile(file, text, this, this.#end);
    this.#sources.set(file, source);
    this.#end += text.length + 1;
    return source;
  }

  /** All files read so far, in order. */
  get sources(): readonly Source[] {
    return [...this.#sources.values()];
  }

  /** Returns the place of a position in the concatenation of all files. */
  placeAt(position: number): SourceLine {
    let found: Source | undefined;
    for (const source of this.#sources.values()) if (source.start <= position) found = source;
    return placeOf(found!, position - found!.start);
  }

  /**
   * Returns the file that an import names; undefined for a package, the
   * language, or a file that cannot be read.
   * @throws CompileError IMPORT for a cycle of imports, LIMIT for too many or too long files
   */
  follow(from: Source, { module, node }: Import): Source | undefined {
    if (!/^\.\.?\//.test(module) || isLanguage(module)) return undefined;
    const path = join(dirname(from.file), module);
    const source = this.#find(from, node, path) ?? this.#find(from, node, asTypeScript(path));
    if (source === undefined) return undefined;
    if (source === from || this.#leads(source, from)) {
      const reason = `${module} imports this file, directly or through others`;
      const hint = "move what both need into a third file";
      throw errorAt(from, node, "IMPORT", reason, hint);
    }
    this.#importedBy(from).add(source);
    return source;
  }

  /** Returns the function or constant that a file exports under a name, also through re-exports. */
  exportOf(source: Source, name: string): Declaration | undefined {
    const exported = source.exports.get(name);
    if (exported === undefined) return undefined;
    if (typeof exported !== "string") return this.importOf(source, exported);
    if (source.functions.has(exported) || source.constants.has(exported)) {
      return { source, name: exported };
    }
    const imported = source.imports.get(exported);
    return imported && this.importOf(source, imported);
  }

  /** Returns the function or constant that an import names. */
  importOf(from: Source, imported: Import): Declaration | undefined {
    const source = this.follow(from, imported);
    return source && this.exportOf(source, imported.name);
  }

  #find(from: Source, node: Node, path: string): Source | undefined {
    const known = this.#sources.get(path);
    if (known !== undefined) return known;
    const text = this.#read(path);
    if (text === undefined) return undefined;
    if (text.length > MAX_LENGTH || this.#sources.size >= MAX_FILES) {
      const reason = `more than ${MAX_FILES} files, or one of more than ${MAX_LENGTH} characters`;
      throw errorAt(from, node, "LIMIT", reason, "import the files of the guest program only");
    }
    return this.add(path, text);
  }

  #importedBy(source: Source): Set<Source> {
    const set = this.#followed.get(source) ?? new Set();
    this.#followed.set(source, set);
    return set;
  }

  #leads(from: Source, to: Source): boolean {
    const reached = new Set([from]);
    for (const source of reached) for (const next of this.#importedBy(source)) reached.add(next);
    return reached.has(to);
  }
}

/** Imports may name the built file. */
function asTypeScript(path: string): string {
  return path.replace(/\.(m?)js$/, ".$1ts");
}

/**
 * Parses a file with guest programs.
 * @param read finds the files that it imports from, by paths relative to the same folder as `file`;
 * without it the file is compiled alone
 * @throws CompileError SYNTAX if the text is invalid TypeScript
 */
export function parseSource(file: string, text: string, read: ReadText = () => undefined): Source {
  return new Project(read).add(file, text);
}

const AS_PROGRAM = "write export function NAME(context: Context): number";

/**
 * Returns the exported functions of a file, in order: its programs.
 * @throws CompileError IMPORT if a re-export leads to no function, or there are none; UNSUPPORTED
 * for a function that is exported in another form than a program's
 */
export function programsIn(source: Source): string[] {
  const names = [...source.exports].flatMap(([name, exported]) => {
    const found = source.project.exportOf(source, name);
    if (found === undefined && typeof exported !== "string") throw notExported(source, exported);
    if (found !== undefined) refuseFunctionValue(found);
    return found?.source.functions.has(found.name) ? [name] : [];
  });
  const { defaultExport } = source;
  if (defaultExport !== undefined) {
    const reason = "a program needs a name, and the default export has none";
    throw errorAt(source, defaultExport, "UNSUPPORTED", reason, AS_PROGRAM);
  }
  if (names.length === 0) throw noPrograms(source);
  return names;
}

/** Refuses `export const txp = (context) => …`, which would be skipped as a constant. */
function refuseFunctionValue({ source, name }: Declaration): void {
  const value = source.constants.get(name);
  if (value?.type !== "ArrowFunctionExpression" && value?.type !== "FunctionExpression") return;
  const reason = `${name} is a function in a constant`;
  throw errorAt(source, value, "UNSUPPORTED", reason, AS_PROGRAM.replace("NAME", name));
}

function noPrograms(source: Source): CompileError {
  const [first] = source.functions;
  const none = { start: 0, end: 0 };
  if (first === undefined) return errorAt(source, none, "IMPORT", "no programs here", AS_PROGRAM);
  const hint = `export the functions that are programs, for example export function ${first[0]}`;
  return errorAt(source, first[1].id ?? none, "IMPORT", "no function is exported", hint);
}

/** Returns the error of an import that leads to no function or constant. */
export function notExported(from: Source, imported: Import): CompileError {
  const { module, name, node } = imported;
  const found = from.project.follow(from, imported);
  return found === undefined
    ? errorAt(from, node, "IMPORT", `${module} cannot be read`, "import an existing .ts file")
    : errorAt(from, node, "IMPORT", `${module} exports no ${name}`, "export it there by its name");
}

/** Returns what a file imports and re-exports from other modules. */
export function importsOf(source: Source): Import[] {
  const passedOn = [...source.exports.values()].filter((e) => typeof e !== "string");
  return [...source.imports.values(), ...passedOn];
}

/**
 * Returns the files of the programs of `source`: itself, and those that it imports guest functions
 * or constants from. Modules that are loaded for their layouts and tables are not among them.
 * @throws CompileError as `follow`
 */
export function programFiles(source: Source): Source[] {
  const files = new Set([source]);
  for (const file of files) {
    for (const imported of importsOf(file)) {
      const found = file.project.importOf(file, imported)?.source;
      if (found !== undefined && isProgramFile(found, file, imported)) files.add(found);
    }
  }
  return [...files];
}

/** True if a name is a function, or may depend on a value that only the compiler knows. */
function isProgramFile(found: Source, from: Source, imported: Import): boolean {
  const { name } = from.project.importOf(from, imported)!;
  return found.declared.size > 0 || found.functions.has(name);
}

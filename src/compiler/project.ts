/**
 * The files of a set of programs: the one that is compiled, and those that it imports functions and
 * constants from by relative paths. A file is read when something in it is needed that the compiler
 * was not given: modules of layouts and tables are not looked at. Positions of all files are
 * numbers in one row, as if they were one text.
 */
import { existsSync, readFileSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
import type { SourceLine } from "../ebpf/program.ts";
import type { CompileError } from "./errors.ts";
import { errorAt, type Import, type Node, parseFile, placeOf, type Source } from "./parse.ts";

/** The text of a file by its path; undefined where there is none. */
export type ReadText = (path: string) => string | undefined;

/** More files, or longer ones, are no guest program. */
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
  /** Which files import from which, as far as that was followed. */
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

  /** All files read so far, the first one first. */
  get sources(): readonly Source[] {
    return [...this.#sources.values()];
  }

  /** The place of a position in the row of all files. */
  placeAt(position: number): SourceLine {
    let found: Source | undefined;
    for (const source of this.#sources.values()) if (source.start <= position) found = source;
    return placeOf(found!, position - found!.start);
  }

  /**
   * The file that an import names; undefined if it names a package,
   * the language, or no file that can be read.
   * @throws CompileError IMPORT for files that import each other in a
   * ring, LIMIT for too many or too long ones
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

  /**
   * The function or constant that a file exports under a name, through the files that pass it on.
   */
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

  /** The function or constant that an import names. */
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

/** Imports may name what the file will be when it is built. */
function asTypeScript(path: string): string {
  return path.replace(/\.(m?)js$/, ".$1ts");
}

/**
 * Parses a file with guest programs.
 * @param read finds the files that it imports from, by paths relative to the same place as `file`;
 * without it the file stands alone
 * @throws CompileError SYNTAX where the text is no TypeScript
 */
export function parseSource(file: string, text: string, read: ReadText = () => undefined): Source {
  return new Project(read).add(file, text);
}

const AS_PROGRAM = "write export function NAME(context: Context): number";

/**
 * The exported functions of a file, in order: its programs.
 * @throws CompileError IMPORT if a file that they are passed on from is not
 * there, or does not export them, or if there are none; UNSUPPORTED for a
 * function that is exported in another form than a program's
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

/**
 * Refuses `export const txp = (context) => …`, which would be taken for a constant and passed over.
 */
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

/** What is wrong with an import that leads to no function or constant. */
export function notExported(from: Source, imported: Import): CompileError {
  const { module, name, node } = imported;
  const found = from.project.follow(from, imported);
  return found === undefined
    ? errorAt(from, node, "IMPORT", `${module} cannot be read`, "import an existing .ts file")
    : errorAt(from, node, "IMPORT", `${module} exports no ${name}`, "export it there by its name");
}

/** What a file imports and passes on from other modules. */
export function importsOf(source: Source): Import[] {
  const passedOn = [...source.exports.values()].filter((e) => typeof e !== "string");
  return [...source.imports.values(), ...passedOn];
}

/**
 * The files that the programs of `source` are written in: it, and those that
 * guest functions or constants are imported from. Files that are loaded as
 * modules, for their layouts and tables, are not among them.
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

/**
 * True if a name is a function, or may depend on what is only known when a program is compiled.
 */
function isProgramFile(found: Source, from: Source, imported: Import): boolean {
  const { name } = from.project.importOf(from, imported)!;
  return found.declared.size > 0 || found.functions.has(name);
}

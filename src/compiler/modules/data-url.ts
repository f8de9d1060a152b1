/**
 * A TypeScript module as the URL of JavaScript, for every supported Node.js: types are removed, and
 * what it imports becomes absolute. Other .ts files become data: URLs in it; `bpfhv/…` is this
 * package, wherever the file is.
 */
import { existsSync, readFileSync } from "node:fs";
import { createRequire, isBuiltin, SourceMap, type SourceMapPayload } from "node:module";
import { fileURLToPath, pathToFileURL } from "node:url";
import { parseSync } from "oxc-parser";
import { transformSync } from "oxc-transform";

/** In a module's text, 1-based. */
export interface ModulePlace {
  readonly file: string;
  readonly line: number;
  readonly column: number;
}

/** A module that cannot be read, parsed or resolved. */
export class ModuleError extends Error {
  readonly place: ModulePlace | undefined;
  /** The message without the place. */
  readonly reason: string;
  constructor(place: ModulePlace | string, reason: string) {
    const isFile = typeof place === "string";
    super(`${isFile ? place : `${place.file}:${place.line}:${place.column}`}: ${reason}`);
    this.place = isFile ? undefined : place;
    this.reason = reason;
  }
}

/** Limits of a ring format's modules. Each level of imports makes the URL a third longer. */
const MAX_DEPTH = 8;
const MAX_LENGTH = 1 << 20;

/**
 * @param files gets the paths of the TypeScript files that it is made of
 * @throws ModuleError
 */
export function javaScriptUrl(
  url: string,
  files: Set<string> = new Set(),
  importedBy: readonly string[] = [],
): string {
  const file = fileURLToPath(url);
  if (importedBy.includes(url)) {
    throw new ModuleError(
      file,
      "imports itself through others: move what they share to a file that imports neither",
    );
  }
  if (importedBy.length >= MAX_DEPTH) throw new ModuleError(file, "imports nest too deep");
  files.add(file);
  const code = withoutTypes(file, read(file), url).code;
  const chain = [...importedBy, url];
  const { module } = parseSync("module.js", code, { sourceType: "module" });
  const requests = [
    ...module.staticImports.map((s) => s.moduleRequest),
    ...module.staticExports.flatMap((s) => s.entries.map((e) => e.moduleRequest)),
  ].filter((request) => request !== null);
  if (module.dynamicImports.length > 0) {
    throw new ModuleError(
      placeIn(file, read(file).search(/\bimport\s*\(/)),
      'import(...) is not supported: write `import { name } from "…"` at the file\'s start',
    );
  }
  let text = "";
  let end = 0;
  for (const { start, end: next, value } of requests.sort((a, b) => a.start - b.start)) {
    if (start < end) continue;
    text += code.slice(end, start) + JSON.stringify(target(value, url, files, chain));
    end = next;
  }
  text += `${code.slice(end)}\n//# sourceURL=${url}\n`;
  return `data:text/javascript;base64,${Buffer.from(text).toString("base64")}`;
}

function read(file: string): string {
  try {
    const text = readFileSync(file, "utf8");
    if (text.length <= MAX_LENGTH) return text;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    throw new ModuleError(file, `cannot be read: ${code}`);
  }
  throw new ModuleError(file, `it has more than ${MAX_LENGTH} characters`);
}

function placeIn(file: string, offset: number): ModulePlace {
  const before = read(file).slice(0, Math.max(0, offset)).split("\n");
  return { file, line: before.length, column: before[before.length - 1].length + 1 };
}

/** Where in the TypeScript file a place in its JavaScript is. Lines and columns are 1-based. */
export function originalPlace(file: string, line: number, column: number): ModulePlace | undefined {
  const { map } = withoutTypes(file, read(file), pathToFileURL(file).href);
  if (map === undefined) return undefined;
  const found = new SourceMap(map as SourceMapPayload).findEntry(line - 1, column - 1);
  if (!("originalLine" in found)) return undefined;
  return { file, line: found.originalLine + 1, column: found.originalColumn + 1 };
}

function withoutTypes(file: string, text: string, url: string) {
  const { code, errors, map } = transformSync(file, text, {
    sourceType: "module",
    sourcemap: true,
    // A data: URL says nothing about where the file was.
    define: { "import.meta.url": JSON.stringify(url) },
  });
  const [first] = errors;
  if (first !== undefined) {
    throw new ModuleError(placeIn(file, first.labels[0]?.start ?? 0), first.message);
  }
  return { code, map };
}

/** What `specifier` means in the file at `from`. */
function target(
  specifier: string,
  from: string,
  files: Set<string>,
  chain: readonly string[],
): string {
  if (isBuiltin(specifier)) return specifier;
  // This package is this one: layouts and classes must be those of the process.
  if (/^bpfhv(\/|$)/.test(specifier)) return resolved(specifier, from, () => own(specifier));
  if (/^\.{0,2}\//.test(specifier) || specifier.startsWith("file:")) {
    const url = new URL(specifier, from).href;
    const source = url.replace(/\.(m?)js$/, ".$1ts");
    // A relative import may name what the file is when it is built.
    const exists = existsSync(fileURLToPath(url)) || !existsSync(fileURLToPath(source));
    const found = exists ? url : source;
    return /\.m?ts$/.test(found) ? javaScriptUrl(found, files, chain) : found;
  }
  const require = createRequire(from);
  return resolved(specifier, from, () => pathToFileURL(require.resolve(specifier)).href);
}

function own(specifier: string): string {
  return import.meta.resolve(specifier);
}

function resolved(specifier: string, from: string, find: () => string): string {
  try {
    return find();
  } catch (error) {
    const [reason] = (error as Error).message.split("\n");
    const file = fileURLToPath(from);
    const place = placeIn(file, read(file).indexOf(specifier));
    throw new ModuleError(place, `cannot resolve "${specifier}": ${reason}`);
  }
}

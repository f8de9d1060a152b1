/**
 * A TypeScript module as the URL of JavaScript, for every supported Node.js: types are removed, and
 * what it imports becomes absolute. Other .ts files become data: URLs in it; `bpfhv/…` is this
 * package, wherever the file is.
 */
import { existsSync, readFileSync } from "node:fs";
import { createRequire, isBuiltin } from "node:module";
import { fileURLToPath, pathToFileURL } from "node:url";
import { parseSync } from "oxc-parser";
import { transformSync } from "oxc-transform";

/** A module that cannot be read, parsed or resolved. */
export class ModuleError extends Error {}

/** Limits of a ring format's modules. Each level of imports makes the URL a third longer. */
const MAX_DEPTH = 8;
const MAX_LENGTH = 1 << 20;

/** @throws ModuleError */
export function javaScriptUrl(url: string, importedBy: readonly string[] = []): string {
  const file = fileURLToPath(url);
  if (importedBy.includes(url)) {
    throw new ModuleError(
      `${file} imports itself through others: move what they share to a file that imports neither`,
    );
  }
  if (importedBy.length >= MAX_DEPTH) throw new ModuleError(`${file}: imports nest too deep`);
  const code = withoutTypes(file, read(file), url);
  const chain = [...importedBy, url];
  const { module } = parseSync("module.js", code, { sourceType: "module" });
  const requests = [
    ...module.staticImports.map((s) => s.moduleRequest),
    ...module.staticExports.flatMap((s) => s.entries.map((e) => e.moduleRequest)),
  ].filter((request) => request !== null);
  if (module.dynamicImports.length > 0) {
    throw new ModuleError(
      `${file}: import(...) is not supported: write \`import { name } from "…"\` at the file's start`,
    );
  }
  let text = "";
  let end = 0;
  for (const { start, end: next, value } of requests.sort((a, b) => a.start - b.start)) {
    if (start < end) continue;
    text += code.slice(end, start) + JSON.stringify(target(value, url, chain));
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
    throw new ModuleError(`cannot read ${file}: ${code}`);
  }
  throw new ModuleError(`${file} has more than ${MAX_LENGTH} characters`);
}

function withoutTypes(file: string, text: string, url: string): string {
  const { code, errors } = transformSync(file, text, {
    sourceType: "module",
    // A data: URL says nothing about where the file was.
    define: { "import.meta.url": JSON.stringify(url) },
  });
  const [first] = errors;
  if (first !== undefined) throw new ModuleError(`${file}: ${first.message}`);
  return code;
}

/** What `specifier` means in the file at `from`. */
function target(specifier: string, from: string, chain: readonly string[]): string {
  if (isBuiltin(specifier)) return specifier;
  // This package is this one: layouts and classes must be those of the process.
  if (/^bpfhv(\/|$)/.test(specifier)) return resolved(specifier, from, () => own(specifier));
  if (/^\.{0,2}\//.test(specifier) || specifier.startsWith("file:")) {
    const url = new URL(specifier, from).href;
    const source = url.replace(/\.(m?)js$/, ".$1ts");
    // A relative import may name what the file is when it is built.
    const exists = existsSync(fileURLToPath(url)) || !existsSync(fileURLToPath(source));
    const found = exists ? url : source;
    return /\.m?ts$/.test(found) ? javaScriptUrl(found, chain) : found;
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
    throw new ModuleError(`${fileURLToPath(from)}: cannot resolve "${specifier}": ${reason}`);
  }
}

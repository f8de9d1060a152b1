/**
 * Loader hooks, which Node.js runs in a separate thread (`module.register`). TypeScript files load
 * from their own text on every supported Node.js, never from a build that may be older.
 */
import { existsSync, readFileSync } from "node:fs";
import type { LoadHook, ResolveHook } from "node:module";
import { fileURLToPath } from "node:url";
import { transformSync } from "oxc-transform";

/** A module that re-exports what a file would import: `?import=SPECIFIER`. */
const STAND_IN = "import";

/** Returns the URL of a module that imports `specifier` as the file at `url` would. */
export function standIn(url: URL, specifier: string): string {
  const module = new URL(url);
  module.searchParams.set(STAND_IN, specifier);
  return module.href;
}

export const resolve: ResolveHook = (specifier, context, next) => {
  // `bpfhv` is this package, wherever the importing file is:
  // layouts must be those of this compiler.
  if (/^bpfhv(\/|$)/.test(specifier)) {
    return next(specifier, { ...context, parentURL: import.meta.url });
  }
  return next(asTypeScript(specifier, context.parentURL) ?? specifier, context);
};

/** A relative import may name the built file. */
function asTypeScript(specifier: string, parent: string | undefined): string | undefined {
  if (!/^\.\.?\/.*\.m?js$/.test(specifier) || parent?.startsWith("file:") !== true)
    return undefined;
  const source = new URL(specifier.replace(/js$/, "ts"), parent);
  if (existsSync(fileURLToPath(new URL(specifier, parent)))) return undefined;
  return existsSync(fileURLToPath(source)) ? source.href : undefined;
}

export const load: LoadHook = (url, context, next) => {
  if (!url.startsWith("file:")) return next(url, context);
  const { pathname, searchParams } = new URL(url);
  const wanted = searchParams.get(STAND_IN);
  if (wanted !== null) {
    const source = `import * as module from ${JSON.stringify(wanted)}; export { module };`;
    return { format: "module", source, shortCircuit: true };
  }
  if (!/\.m?ts$/.test(pathname)) return next(url, context);
  return { format: "module", source: stripped(fileURLToPath(url)), shortCircuit: true };
};

/** Returns the JavaScript of a TypeScript file. @throws SyntaxError */
function stripped(file: string): string {
  const { code, errors } = transformSync(file, readFileSync(file, "utf8"), {
    sourceType: "module",
  });
  const [first] = errors;
  if (first !== undefined) throw new SyntaxError(`${file}: ${first.message}`);
  return code;
}

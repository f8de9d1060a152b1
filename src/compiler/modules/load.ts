/**
 * Loads the layouts and constants that guest programs import,
 * from packages, JavaScript and TypeScript.
 */
import { register } from "node:module";
import { pathToFileURL } from "node:url";
import { standIn } from "./hooks.ts";

let registered = false;

/**
 * Returns the exports of what `from` imports as `specifier`. Packages are resolved from that file's
 * folder, and `bpfhv/…` is this package.
 * @throws the module's own error, or Node's error if it was not found
 */
export async function loadImport(
  from: string,
  specifier: string,
): Promise<Record<string, unknown>> {
  if (!registered) register("./hooks.js", import.meta.url);
  registered = true;
  const { module } = await import(standIn(pathToFileURL(from), specifier));
  return module;
}

/**
 * Loads what guest programs import: layouts and constants, from
 * packages, JavaScript and TypeScript.
 */
import { register } from "node:module";
import { pathToFileURL } from "node:url";
import { standIn } from "./hooks.ts";

let registered = false;

/**
 * The exports of what `from` imports as `specifier`: packages are looked up from that file's
 * folder, and `bpfhv/…` is this package.
 * @throws what loading throws: the module's own error, or Node's that says what was not found
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

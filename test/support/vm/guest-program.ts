/** Small programs in C that tests run in guests, which have no libraries for them. */
import { execFileSync } from "node:child_process";
import { basename, join } from "node:path";
import { packageRoot } from "../../../src/vm/guest-parts.ts";
import { patience } from "./time.ts";

/**
 * Compiles one.
 * @param source its file, from the package's root
 * @returns the program's path in the folder
 */
export function buildGuestProgram(folder: string, source: string): string {
  const path = join(folder, basename(source, ".c"));
  const words = ["-static", "-O2", "-pthread", "-Wall", "-Werror"];
  execFileSync("cc", [...words, "-o", path, join(packageRoot(), source)], {
    timeout: patience(60_000),
  });
  return path;
}

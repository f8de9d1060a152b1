/**
 * This project's cases: `cases/<group>.txt`, one case a line, several for
 * each instruction of each conformance group.
 *
 *     R0 = instruction; instruction … [@ memory]
 *
 * The last `exit` is implicit. `#` begins a comment line.
 */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { CaseError } from "./case.ts";

/** The folder in the package, relative to dist/src/ebpf/conformance. */
export const OWN_CASES = fileURLToPath(
  new URL("../../../../src/ebpf/conformance/cases", import.meta.url),
);

export interface OwnCase {
  /** File and line, such as `atomic32:12`. */
  readonly name: string;
  readonly line: string;
  /** The case in the suite's form, for `runCase`. */
  readonly text: string;
}

/** Converts a line to the suite's format. @throws CaseError if the line is not of the form above */
export function inSuiteForm(line: string): string {
  const parts = /^(\S+) = (.*?)(?: @ (.*))?$/.exec(line);
  if (parts === null) throw new CaseError(`"${line}" is not "R0 = instruction; … [@ memory]"`);
  const [, r0, program, memory] = parts;
  const mem = memory === undefined ? "" : `-- mem\n${memory}\n`;
  return `-- asm\n${program!.replaceAll("; ", "\n")}\nexit\n${mem}-- result\n${r0}\n`;
}

/** Returns the cases of one `.txt` file. @throws CaseError if a line is not a case */
export function ownCasesOf(path: string, name: string): OwnCase[] {
  return readFileSync(path, "utf8")
    .split("\n")
    .map((line, i) => ({ name: `${name}:${i + 1}`, line: line.trim() }))
    .filter(({ line }) => line !== "" && !line.startsWith("#"))
    .map((each) => ({ ...each, text: inSuiteForm(each.line) }));
}

/** Returns all cases of this project, by file. */
export function ownCases(): OwnCase[] {
  const files = readdirSync(OWN_CASES).filter((file) => file.endsWith(".txt"));
  return files.sort().flatMap((file) => ownCasesOf(join(OWN_CASES, file), file.slice(0, -4)));
}

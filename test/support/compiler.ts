/**
 * Input for compiler tests: the golden files' folder, and values
 * for the names that they do not declare.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import * as abi from "../../src/abi/index.ts";
import { parseSource, type Source } from "../../src/compiler/index.ts";
import { readFromDisk } from "../../src/compiler/project.ts";

export const TESTDATA = fileURLToPath(new URL("../../../src/compiler/testdata/", import.meta.url));

const RING = abi.struct("ring", 64, {
  head: abi.u16(0),
  flags: abi.u8(2),
  packed: abi.u32(4),
  total: abi.u64(8),
});
export const GIVEN = { ...abi, RING, bufs: 16, form: "helperfree" };

/** Reads a file of `testdata`. Paths and places are relative to that folder. */
export function testSource(file: string): Source {
  const text = readFileSync(join(TESTDATA, file), "utf8");
  return parseSource(file, text, (path) => readFromDisk(join(TESTDATA, path)));
}

// Golden files: each `testdata/x.ts` beside the optimised form and the assembly that it becomes, or its error.
// `BPFHV_CREATE=1 node --test dist/src/compiler/golden.test.js` rewrites them; the diff is the review.
import assert from "node:assert/strict";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import test from "node:test";
import { fileURLToPath } from "node:url";
import * as abi from "../abi/index.ts";
import { disassembleProgram } from "../ebpf/text.ts";
import { CompileError, compileFunction, parseSource, type Source } from "./index.ts";
import { lower } from "./lower.ts";
import { optimise } from "./passes/index.ts";
import { printFunc } from "./print.ts";

const FOLDER = fileURLToPath(new URL("../../../src/compiler/testdata/", import.meta.url));
const RING = abi.struct("ring", 64, {
  head: abi.u16(0),
  flags: abi.u8(2),
  packed: abi.u32(4),
  total: abi.u64(8),
});
const GIVEN = { ...abi, RING, bufs: 16, form: "helperfree" };

function compiled(source: Source): string {
  return source.exported
    .flatMap((name) => {
      const func = lower(source, name, GIVEN);
      optimise(func);
      const program = compileFunction(source, name, GIVEN);
      return [printFunc(func), "", ...disassembleProgram(program, { source: true }), ""];
    })
    .join("\n");
}

function outcome(file: string): string {
  try {
    return compiled(parseSource(file, readFileSync(join(FOLDER, file), "utf8")));
  } catch (error) {
    if (error instanceof CompileError) return `${error.code} ${error.message}\n`;
    throw error;
  }
}

for (const file of readdirSync(FOLDER).filter((name) => name.endsWith(".ts"))) {
  test(`${file} becomes what its golden file says`, () => {
    const golden = join(FOLDER, file.replace(/ts$/, "golden"));
    const got = outcome(file);
    if (process.env.BPFHV_CREATE === "1") writeFileSync(golden, got);
    assert.equal(got, readFileSync(golden, "utf8"));
  });
}

test("every error has a place, the offending text, and what to write instead", () => {
  for (const file of readdirSync(FOLDER).filter((name) => /^error-.*ts$/.test(name))) {
    assert.match(outcome(file), /^[A-Z]+ error-[\w-]+\.ts:\d+:\d+: .+: .+\n$/, file);
  }
});

// Golden files: each `testdata/x.ts` has its optimised form and assembly beside it, or its error.
// `BPFHV_CREATE=1 node --test dist/src/compiler/golden.test.js` rewrites them: review the diff.
import assert from "node:assert/strict";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import test from "node:test";
import { GIVEN, TESTDATA, testSource } from "../../test/support/compiler.ts";
import { disassembleProgram } from "../ebpf/text.ts";
import { optimised } from "./compile.ts";
import { CompileError, compileFunction, type Source } from "./index.ts";
import { printFunc } from "./print.ts";
import { programsIn } from "./project.ts";

function compiled(source: Source): string {
  return programsIn(source)
    .flatMap((name) => {
      const functions = optimised(source, name, GIVEN).map(printFunc);
      const program = compileFunction(source, name, GIVEN);
      return [...functions, "", ...disassembleProgram(program, { source: true }), ""];
    })
    .join("\n");
}

function outcome(file: string): string {
  try {
    return compiled(testSource(file));
  } catch (error) {
    if (error instanceof CompileError) return `${error.code} ${error.message}\n`;
    throw error;
  }
}

for (const file of readdirSync(TESTDATA).filter((name) => name.endsWith(".ts"))) {
  test(`compiler output of ${file} equals its golden file`, () => {
    const golden = join(TESTDATA, file.replace(/ts$/, "golden"));
    const got = outcome(file);
    if (process.env.BPFHV_CREATE === "1") writeFileSync(golden, got);
    assert.equal(got, readFileSync(golden, "utf8"));
  });
}

test("compile error has a place, the offending text and a hint", () => {
  for (const file of readdirSync(TESTDATA).filter((name) => /^error-.*ts$/.test(name))) {
    assert.match(outcome(file), /^[A-Z]+ [\w/-]+\.ts:\d+:\d+: .+: .+\n$/, file);
  }
});

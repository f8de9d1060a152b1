// Golden files: each `testdata/x.ts` beside the optimised form and the assembly that it becomes, or its error.
// `BPFHV_CREATE=1 node --test dist/src/compiler/golden.test.js` rewrites them; the diff is the review.
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
  test(`${file} becomes what its golden file says`, () => {
    const golden = join(TESTDATA, file.replace(/ts$/, "golden"));
    const got = outcome(file);
    if (process.env.BPFHV_CREATE === "1") writeFileSync(golden, got);
    assert.equal(got, readFileSync(golden, "utf8"));
  });
}

test("every error has a place, the offending text, and what to write instead", () => {
  for (const file of readdirSync(TESTDATA).filter((name) => /^error-.*ts$/.test(name))) {
    assert.match(outcome(file), /^[A-Z]+ [\w/-]+\.ts:\d+:\d+: .+: .+\n$/, file);
  }
});

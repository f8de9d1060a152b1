// Sources of any depth give a program or an error: parser and compiler do not exhaust the stack.
import assert from "node:assert/strict";
import test from "node:test";
import { fileURLToPath } from "node:url";
import { GIVEN } from "../../test/support/compiler.ts";
import { CompileError, compileFunction, parseSource } from "./index.ts";

const LANGUAGE = fileURLToPath(new URL("../../../src/compiler/language.ts", import.meta.url));

/** Returns a program with the statements `body`, which may use `a`, a number set by the host. */
function source(body: string, before = ""): string {
  return `// @ts-nocheck
import { type Context, u64, view } from "${LANGUAGE}";
declare const RING: any;
${before}
export function main(context: Context): u64 {
  let a = view(RING, context, 64).total;
  ${body}
}
`;
}

const all = (n: number, part: (i: number) => string): string =>
  Array.from({ length: n }, (_, i) => part(i)).join("");

type Shape = (n: number) => string;
const SHAPES: Readonly<Record<string, Shape>> = {
  parentheses: (n) => source(`return ${"(".repeat(n)}a${")".repeat(n)};`),
  "left-nested sums": (n) => source(`return a${" + a".repeat(n)};`),
  "right-nested sums": (n) => source(`return ${"a + (".repeat(n)}a${")".repeat(n)};`),
  "unary operators": (n) => source(`return ${"~".repeat(n)}a;`),
  "nested ifs": (n) => source(`${"if (a > 1) {".repeat(n)}return 1;${"}".repeat(n)} return 0;`),
  "nested ifs without braces": (n) => source(`${"if (a > 1) ".repeat(n)}return 1; return 0;`),
  "else if": (n) => source(`${all(n, (i) => `if (a === ${i}) { return 1; } else `)}{ return 0; }`),
  "a condition of many parts": (n) =>
    source(`if (${"a > 1 && ".repeat(n)}a > 2) return 1; return 0;`),
  "conditional expressions": (n) => source(`return ${"a > 1 ? 1 : ".repeat(n)}0;`),
  "nullish operators": (n) => source(`return ${"a ?? ".repeat(n)}a;`),
  blocks: (n) => source(`${"{".repeat(n)}a += 1;${"}".repeat(n)} return a;`),
  "nested calls": (n) => {
    const last = `function f${n}(a: u64): u64 { return a; }\n`;
    const others = all(n, (i) => `function f${i}(a: u64): u64 { return f${i + 1}(a); }\n`);
    return source("return f0(a);", others + last);
  },
};

for (const [what, shape] of Object.entries(SHAPES)) {
  for (const n of [180, 700, 1400, 2900, 20_000]) {
    test(`compiler terminates when the source contains ${n} times ${what}`, () => {
      try {
        compileFunction(parseSource("deep.ts", shape(n)), "main", GIVEN);
      } catch (error) {
        assert.ok(error instanceof CompileError, String(error).slice(0, 200));
      }
    });
  }
}

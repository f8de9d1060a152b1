// Programs in several files: they are found, bounded, and read only if needed.
import assert from "node:assert/strict";
import test from "node:test";
import { GIVEN } from "../../test/support/compiler.ts";
import { CompileError, compileSource, type Given, parseSource, programFiles } from "./index.ts";

const PRELUDE = `import { type Context, u32, view } from "bpfhv/compiler/language";\n`;
const main = (body: string): string =>
  `${PRELUDE}${body}\nexport function main(context: Context): number { return f(3); }`;

/** Compiles `main.ts` with other files. @returns the files that were read */
function compile(files: Readonly<Record<string, string>>, given: Given = GIVEN): string[] {
  const asked: string[] = [];
  const source = parseSource("main.ts", files["main.ts"]!, (path) => {
    asked.push(path);
    return files[path];
  });
  compileSource(source, given);
  return asked;
}

const refused = (code: string, message: RegExp) => (error: unknown) =>
  error instanceof CompileError && error.code === code && message.test(error.message);

test("files are read once when they are needed, also by their built name", () => {
  const files = {
    "main.ts": main(`import { f, g } from "./lib/f.js"; import { x } from "./unused.ts";
      import { bufs } from "./given.ts"; const y = g(bufs);`),
    "lib/f.ts": `import { two } from "../two.ts"; export function f(x) { return x * two; }
      export function g(x) { return f(x); }`,
    "two.ts": "export const two = 2;",
    "given.ts": "this is not TypeScript",
  };
  assert.deepEqual(compile(files), ["lib/f.js", "lib/f.ts", "two.ts"]);
});

test("functions are distinct when two files declare the same name", () => {
  const files = {
    "main.ts": main(
      `import { g } from "./g.ts"; function h() { return 5; } function f(x) { return g() * h(); }`,
    ),
    "g.ts": "function h() { return 7; } export function g() { return h(); }",
  };
  const source = parseSource("main.ts", files["main.ts"], (path) => files[path as "g.ts"]);
  const [program] = compileSource(source, GIVEN);
  // w0 = 35; exit
  assert.equal(Buffer.from(program!.code).toString("hex"), "b7000000230000009500000000000000");
});

test("file is compiled alone when no reader is given", () => {
  const text = main(`import { f } from "./f.ts";`);
  const compileAlone = () => compileSource(parseSource("main.ts", text), GIVEN);
  assert.throws(
    compileAlone,
    refused("NAME", /^main\.ts:3:\d+: the compiler was given no value for f of "\.\/f\.ts"/),
  );
});

test("syntax error has the place in its file when another file imports it", () => {
  const files = {
    "main.ts": main(`import { f } from "./lib/f.ts";`),
    "lib/f.ts": "\n export function f( {",
  };
  assert.throws(() => compile(files), refused("SYNTAX", /^lib\/f\.ts:\d+:\d+: /));
});

test("unknown name has the place in its file when another file imports it", () => {
  const files = {
    "main.ts": main(`import { f } from "./f.ts";`),
    "f.ts": "const size = RING;\nexport function f(x) { return size; }\nconst RING = RING2;",
  };
  assert.throws(() => compile(files), refused("NAME", /^f\.ts:3:\d+: RING2 is not defined/));
});

test("imports are refused when they form a cycle of any length", () => {
  const files: Record<string, string> = { "main.ts": main(`import { f } from "./f0.ts";`) };
  const next = (i: number): string => (i === 9 ? "main.ts" : `f${i + 1}.ts`);
  for (let i = 0; i < 10; i++) {
    files[`f${i}.ts`] =
      `import { f as g } from "./${next(i)}"; export function f(x) { return g(x); }`;
  }
  files["main.ts"] += ` export { f };`;
  assert.throws(
    () => compile(files),
    refused("IMPORT", /^f9\.ts:1:\d+: \.\/main\.ts imports this file/),
  );
});

test("imports are read once when many paths lead to them", () => {
  const files: Record<string, string> = { "main.ts": main(`import { f } from "./a0.ts";`) };
  for (let i = 0; i < 20; i++) {
    for (const side of ["a", "b"]) {
      files[`${side}${i}.ts`] =
        `import { f as g } from "./a${i + 1}.ts"; import { f as h } from "./b${i + 1}.ts";
        export function f(x) { return x === 0 ? g(x) : x === 1 ? h(x) : x; }`;
    }
  }
  files["a20.ts"] = files["b20.ts"] = "export function f(x) { return x; }";
  assert.equal(compile(files).length, 1);
  const source = parseSource("main.ts", files["main.ts"]!, (path) => files[path]);
  assert.equal(programFiles(source).length, 42);
});

test("compiler refuses more than 64 files, and files of more than a mebibyte", () => {
  const files: Record<string, string> = { "main.ts": main(`import { f } from "./f0.ts";`) };
  for (let i = 0; i < 70; i++) {
    files[`f${i}.ts`] =
      `import { c as d } from "./f${i + 1}.ts"; export const c = d + 1; export function f(x) { return c; }`;
  }
  assert.throws(() => compile(files), refused("LIMIT", /^f62\.ts:1:\d+: more than 64 files/));
  const long = {
    "main.ts": main(`import { f } from "./f.ts";`),
    "f.ts": " ".repeat((1 << 20) + 1),
  };
  assert.throws(() => compile(long), refused("LIMIT", /^main\.ts:2:\d+: .*1048576 characters/));
});

test("functions are not callable when a module is imported as a namespace", () => {
  const files = {
    "main.ts": main(`import * as lib from "./f.ts"; function f(x) { return lib.f(x); }`),
    "f.ts": "export function f(x) { return x; }",
  };
  const given = { ...GIVEN, lib: { f: () => 0 } };
  assert.throws(() => compile(files, given), refused("UNSUPPORTED", /function cannot be called/));
});

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { fileURLToPath, pathToFileURL } from "node:url";
import * as abi from "../abi/index.ts";
import { compileSource, parseSource } from "../compiler/index.ts";
import * as layout from "../devices/sring/layout.ts";
import { readElf } from "../ebpf/elf-reader.ts";

const MAIN = fileURLToPath(new URL("main.js", import.meta.url));
const SRING = fileURLToPath(new URL("../../../src/devices/sring/guest.ts", import.meta.url));
const SRING_GSO = SRING.replace("sring", "sring_gso");

const compile = (...args: string[]) =>
  spawnSync(process.execPath, [MAIN, "compile", ...args], { encoding: "utf8" });

const folder = mkdtempSync(join(tmpdir(), "bpfhv-compile-"));
after(() => rmSync(folder, { recursive: true }));

/** Writes files into a folder of their own; @returns the path of the first. */
function written(files: Readonly<Record<string, string>>): string {
  for (const [name, text] of Object.entries(files)) writeFileSync(join(folder, name), text);
  return join(folder, Object.keys(files)[0]!);
}

/** The programs of sring as the library compiles them: name to hex. */
function wanted(bufs: number): Map<string, string> {
  const read = (path: string) => readFileSync(path, "utf8");
  const source = parseSource(SRING, read(SRING), read);
  const programs = compileSource(source, { ...abi, ...layout, bufs, form: "helperfree" });
  return new Map(programs.map((p) => [p.name, Buffer.from(p.code).toString("hex")]));
}

test("a device's programs are compiled with their constants, and shown with their source", () => {
  const { stdout, status } = compile(SRING, "--define", "bufs=64");
  assert.equal(status, 0);
  assert.match(stdout, /; txp\n; .*guest\.ts:\d+: const count = .*\n {3}0: r\d = \*\(u32 \*\)/);
  assert.match(stdout, /; .*guest-ring\.ts:\d+: const wanted = /);
  assert.match(stdout, /&= 63\n/);
  assert.doesNotMatch(stdout, /call/);
  assert.match(compile(SRING, "--define", "bufs=64", "--form", "v1").stdout, /call/);
});

test("--to hex prints each program's code, as the library makes it", () => {
  const { stdout, status } = compile(SRING, "--define", "bufs=256", "--to", "hex");
  assert.equal(status, 0);
  const programs = stdout
    .trimEnd()
    .split("\n\n")
    .map((text) => text.split("\n"));
  const printed = new Map(programs.map(([name, hex]) => [name!.replace("; ", ""), hex]));
  assert.deepEqual(printed, wanted(256));
  assert.equal(printed.size, 8);
});

test("--json has code, length and the source line of every change of line, with its file", () => {
  const rows = JSON.parse(compile(SRING, "--define", "bufs=256", "--json").stdout);
  const codes = wanted(256);
  assert.deepEqual(
    rows.map((r: { name: string }) => r.name),
    [...codes.keys()],
  );
  for (const { name, code, instructions, lines } of rows) {
    assert.equal(codes.get(name), code);
    assert.equal(instructions, code.length / 16);
    for (const { slot, file, line, column, text } of lines) {
      assert.ok(slot >= 0 && slot < instructions);
      const source = readFileSync(file, "utf8").split("\n")[line - 1]!;
      assert.equal(source.trim(), text);
      assert.ok(column >= 1 && column <= source.length);
    }
  }
  const files = (name: string): Set<string> =>
    new Set(
      rows
        .find((r: { name: string }) => r.name === name)
        .lines.map((l: { file: string }) => l.file),
    );
  assert.deepEqual([...files("txp")].sort(), [SRING.replace("guest", "guest-ring"), SRING]);
  assert.deepEqual([...files("rxi")], [SRING.replace("guest", "guest-ring")]);
});

test("--to elf -o writes an object with the same code", () => {
  const object = join(folder, "sring.o");
  const { stdout, status } = compile(SRING, "--define", "bufs=256", "--to", "elf", "-o", object);
  assert.deepEqual({ stdout, status }, { stdout: "", status: 0 });
  const programs = readElf(readFileSync(object));
  const codes = new Map(programs.map((p) => [p.name, Buffer.from(p.code).toString("hex")]));
  assert.deepEqual(codes, wanted(256));
});

for (const guest of [SRING, SRING_GSO]) {
  test(`--module carries all that ${guest.split("/").at(-2)} is compiled from`, async () => {
    const module = join(folder, `${guest.split("/").at(-2)}.mjs`);
    assert.equal(compile(guest, "--module", "-o", module).status, 0);
    const { file, text, files } = await import(pathToFileURL(module).href);
    assert.equal(file, "guest.ts");
    assert.doesNotMatch(JSON.stringify(Object.keys(files)), /language|layout|abi/);
    const gso = await import("../devices/sring_gso/layout.js");
    const given = { ...abi, ...layout, ...gso, bufs: 256, form: "helperfree" };
    const programs = compileSource(
      parseSource(file, text, (path) => files[path]),
      given,
    );
    assert.equal(programs.length, 8);
    if (guest !== SRING) return;
    for (const { name, code } of programs) {
      assert.equal(Buffer.from(code).toString("hex"), wanted(256).get(name));
    }
  });
}

const LANGUAGE = "bpfhv/compiler/language";

test("a missing constant is named, with its place and what to do", () => {
  const { stderr, status } = compile(SRING);
  assert.equal(status, 1);
  assert.match(stderr, /guest\.ts:\d+:\d+: no value was given for bufs .*--define bufs=1/);
});

test("imported files that declare constants are compiled, not run; others are loaded", () => {
  const file = written({
    "own.ts": `import { type Context } from "${LANGUAGE}"; import { most } from "./most.ts"; import { two } from "./two.mjs";
      export function main(context: Context): number { return most(two); }`,
    "most.ts": `declare const limit: number; export function most(x) { return x > limit ? limit : x; }
      throw new Error("this file was run");`,
    "two.mjs": "export const two = 1 + 1;",
  });
  const { stdout, stderr } = compile(file, "--define", "limit=9", "--to", "hex");
  assert.deepEqual([stdout, stderr], ["; main\nb7000000020000009500000000000000\n", ""]);
});

test("an error in an imported file has that file's place", () => {
  const file = written({
    "wrong.ts": `import { f } from "./at-fault.ts";\nexport function main(context) { return f(context); }`,
    "at-fault.ts": `declare const n: number;\nexport function f(context) {\n  return n + nothing;\n}`,
  });
  const { stderr, status } = compile(file, "--define", "n=1");
  assert.equal(status, 1);
  assert.match(stderr, /at-fault\.ts:3:14: nothing is not defined \(at "nothing"\)/);
});

test("one name for two values in the files of a program is refused", () => {
  const file = written({
    "twice.ts": `import { f } from "./other.ts"; import { size } from "./one.mjs";
      export function main(context) { return f(size); }`,
    "other.ts": `import { size } from "./other-one.mjs"; export function f(x) { return x + size; }`,
    "one.mjs": "export const size = 1;",
    "other-one.mjs": "export const size = 2;",
  });
  const { stderr, status } = compile(file);
  assert.equal(status, 1);
  assert.match(stderr, /size means two things in the files of .*twice\.ts: rename one of them/);
});

/** The block of the manual that begins with a comment naming its file, as it is printed there. */
const MANUAL = readFileSync(new URL("../../../docs/compiler.md", import.meta.url), "utf8");

test("the manual's example compiles from the command line, with a layout in TypeScript", () => {
  const [, program] = /```ts\n(import \{ CONTEXT[\s\S]*?)```/.exec(MANUAL)!;
  const [, layout] = /```ts\n(\/\/ layout\.ts\n[\s\S]*?)```/.exec(MANUAL)!;
  const file = written({ "manual.ts": program!, "layout.ts": layout! });
  const { stdout, stderr, status } = compile(file, "--define", "bufs=64");
  assert.deepEqual([stderr, status], ["", 0]);
  assert.match(stdout, /^; txp\n[\s\S]*atomic_fetch_add/);
});

test("a TypeScript module that is imported is read as it is now, not as it was built", () => {
  const text = `import { size } from "./size.ts"; export function main(context) { return size; }`;
  const project = join(folder, "project");
  mkdirSync(join(project, "src"), { recursive: true });
  mkdirSync(join(project, "dist/src"), { recursive: true });
  writeFileSync(join(project, "src/main.ts"), text);
  writeFileSync(join(project, "src/size.ts"), "export const size: number = Number(2);");
  writeFileSync(join(project, "dist/src/size.js"), "export const size = 1;");
  const { stdout, stderr } = compile(join(project, "src/main.ts"), "--to", "hex");
  assert.deepEqual([stdout, stderr], ["; main\nb7000000020000009500000000000000\n", ""]);
});

test("packages are found from the file that imports them, wherever the command runs", () => {
  const project = join(folder, "with-package");
  const library = join(project, "node_modules/numbers");
  mkdirSync(library, { recursive: true });
  const manifest = { name: "numbers", type: "module", exports: { import: "./index.js" } };
  writeFileSync(join(library, "package.json"), JSON.stringify(manifest));
  writeFileSync(join(library, "index.js"), "export const two = 2;");
  const text = (name: string) =>
    `import { two } from "${name}"; export function main(context) { return two; }`;
  writeFileSync(join(project, "main.ts"), text("numbers"));
  writeFileSync(join(project, "none.ts"), text("no-such"));
  const found = compile(join(project, "main.ts"), "--to", "hex");
  assert.equal(found.stdout, "; main\nb7000000020000009500000000000000\n", found.stderr);
  const { stderr, status } = compile(join(project, "none.ts"));
  assert.equal(status, 1);
  assert.match(
    stderr,
    /^bpfhv: .*none\.ts: "no-such" cannot be loaded: Cannot find package 'no-such' [^\n]*\n$/,
  );
});

test("compile names an imported module in one line when it fails to parse or run", () => {
  const file = written({
    "uses-broken.ts": `import { x } from "./throws.ts"; export function main(ctx) { return x; }`,
    "throws.ts": "export const x: number = (() => { throw new Error('no luck'); })();",
  });
  const { stderr, status } = compile(file);
  assert.equal(status, 1);
  assert.match(stderr, /^bpfhv: .*uses-broken\.ts: "\.\/throws\.ts" cannot be loaded: no luck\n$/);
});

test("compile --device makes a set that is proved, and that needs all of its context", () => {
  const example = fileURLToPath(new URL("../../../examples/mini-ring.ts", import.meta.url));
  const object = join(folder, "mini.o");
  const words = ["--device", example, "--bufs", "256", "--to", "elf", "-o", object];
  assert.deepEqual(compile(...words).stderr, "");
  const names = readElf(readFileSync(object)).map(({ name }) => name);
  assert.deepEqual(names.sort(), ["rxc", "rxi", "rxp", "rxr", "txc", "txi", "txp", "txr"]);
  const verify = (size: number) =>
    spawnSync(process.execPath, [MAIN, "verify", object, "--context-size", `${size}`], {
      encoding: "utf8",
    });
  const size = 2096 + 256 + 24 * 256;
  const { stdout, status } = verify(size);
  assert.equal(status, 0, stdout);
  assert.equal(verify(size - 24).status, 1);
});

test("compile refuses a file beside --device, and --define or --module with it", () => {
  for (const words of [[], [SRING, "--device", "sring"], ["--device", "sring", "--module"]]) {
    assert.equal(compile(...words).status, 2, `${words}`);
  }
  assert.equal(compile("--device", "sring", "--define", "bufs=16").status, 2);
});

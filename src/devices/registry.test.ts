/** Ring formats by name, and by the URL of a module outside the tree. */
import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, relative, resolve } from "node:path";
import { after, test } from "node:test";
import { fileURLToPath, pathToFileURL } from "node:url";
import { forgetChanged, programsOf } from "./program-set.ts";
import { proveDevice } from "./proof.ts";
import { DeviceError, FORMATS, loadFormat, prepareDevice, resolveDevice } from "./registry.ts";

const ROOT = fileURLToPath(new URL("../../..", import.meta.url));
const MINI = readFileSync(join(ROOT, "examples/mini-ring.ts"), "utf8");
const folder = mkdtempSync(join(tmpdir(), "bpfhv-format-"));
after(() => rmSync(folder, { recursive: true, force: true }));

function write(name: string, text: string): string {
  const path = join(folder, name);
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, text);
  return pathToFileURL(path).href;
}

test("resolveDevice leaves names and URLs, and makes URLs of paths", () => {
  for (const { name } of FORMATS) assert.equal(resolveDevice(name), name);
  assert.equal(resolveDevice("file:///x/nic.ts"), "file:///x/nic.ts");
  assert.equal(resolveDevice("./my nic.ts", "/home/me"), "file:///home/me/my%20nic.ts");
  assert.equal(resolveDevice("nic.js", "/home/me"), "file:///home/me/nic.js");
  assert.equal(resolveDevice("/opt/nic", "/home/me"), "file:///opt/nic");
  assert.throws(
    () => resolveDevice("e1000"),
    /unknown device "e1000": there are \w+, .*my-nic\.ts/,
  );
});

test("loadFormat loads a TypeScript module from a folder without packages", async () => {
  const url = write("alone/nic.ts", MINI);
  const format = await loadFormat(url);
  assert.equal(format.name, "mini_ring");
  assert.equal(format.contextSize(256), 2096 + 256 + 24 * 256);
  assert.equal(programsOf(format, { bufs: 16, form: "helperfree" }).code.size, 8);
});

test("loadFormat loads a module in several files, also by names that they have when built", async () => {
  write("parts/layout.ts", `enum Size { head = 256 }\nexport const HEAD: number = Size.head;\n`);
  write("parts/table.js", "export const FOUR = 4;\n");
  const text = MINI.replace("256, {", "HEAD, {").concat(
    `import { HEAD } from "./layout.js";\nimport { FOUR } from "./table.js";\nvoid FOUR;\n`,
  );
  const format = await loadFormat(write("parts/nic.ts", text));
  assert.equal(format.contextSize(16), 2096 + 256 + 24 * 16);
});

test("programs are compiled anew when a file of them was edited", async () => {
  write("edited/guest.ts", MINI);
  const programs = 'programs: new URL("./guest.ts", import.meta.url)';
  const url = write("edited/nic.ts", MINI.replace("programs: import.meta.url", programs));
  const format = await loadFormat(url);
  const options = { bufs: 16, form: "helperfree" } as const;
  const before = programsOf(format, options);
  forgetChanged();
  assert.equal(programsOf(format, options), before, "nothing has changed");
  write("edited/guest.ts", MINI.replace("ring.intr = ring.prod;", ""));
  forgetChanged();
  assert.notDeepEqual(programsOf(await loadFormat(url), options), before);
});

test("refusal of the verifier names the line of the module's source", async () => {
  const careless = MINI.replace("[index & (bufs - 1)]", "[index]");
  const format = await loadFormat(write("careless.ts", careless));
  const verdicts = proveDevice(format, { rxBufs: 16, txBufs: 16 });
  const { line } = verdicts.find(({ accepted }) => !accepted)!.refusal!;
  assert.match(`${line?.file} ${line?.text}`, /careless\.ts const slot = .*\[index\];$/);
});

test("prepareDevice gives a worker the same module, even if the file changes", async () => {
  const url = write("changing/nic.ts", MINI);
  const prepared = await prepareDevice(url);
  assert.match(prepared, /^data:text\/javascript/);
  write("changing/nic.ts", "export default 1;");
  assert.equal((await loadFormat(prepared)).name, "mini_ring");
  const [built] = FORMATS;
  assert.equal(await prepareDevice(built.name), built.name);
});

const WRONG: readonly [what: string, text: string, message: RegExp][] = [
  [
    "has no default export",
    "export const nic = 1;",
    /wrong.nic\.ts has no ring format: export def/,
  ],
  ["exports something else", "export default { name: 'x' };", /has no ring format/],
  ["has a syntax error", "export default 1 +;", /nic\.ts:1:19: Unexpected token/],
  ["throws", "throw new Error('no such card');", /cannot load .*nic\.ts: no such card/],
  ["imports a missing file", 'import "./gone.ts";', /gone\.ts: cannot be read: ENOENT/],
  ["imports a missing package", 'import "no-such-package";', /cannot resolve "no-such-package"/],
  ["imports what this package has not", 'import "bpfhv/none";', /cannot resolve "bpfhv\/none"/],
  ["imports itself", 'import "./nic.ts";', /nic\.ts: imports itself .*: move what they share to/],
  [
    "imports dynamically",
    'await import("./x.ts");',
    /import\(\.\.\.\) is not supported: write `import \{ name \}/,
  ],
  ["is too long", `// ${"x".repeat(1 << 20)}`, /has more than 1048576 characters/],
  [
    "has an invalid name",
    MINI.replace('mini_ring",\n  prog', 'Mini Ring",\n  prog'),
    /"Mini Ring": use/,
  ],
];

for (const [what, text, message] of WRONG) {
  test(`loadFormat refuses a module that ${what}`, async () => {
    const url = write("wrong/nic.ts", text);
    await assert.rejects(loadFormat(url), (error: Error) => {
      assert.ok(error instanceof DeviceError, `${error}`);
      assert.match(error.message, message);
      return true;
    });
  });
}

/** Files of `src` that a module loads when it is loaded: what it only imports as types is not. */
function loadedBy(file: string, seen = new Set<string>()): Set<string> {
  if (seen.has(file)) return seen;
  seen.add(file);
  const text = readFileSync(file, "utf8");
  const imports = /^(?:import|export) (?!type )[^;]*?"(\.[^"]+)";/gms;
  for (const [, specifier] of text.matchAll(imports)) {
    loadedBy(resolve(dirname(file), specifier), seen);
  }
  return seen;
}

test("the worker of a NIC loads neither compiler nor verifier, nor does `bpfhv/nic`", () => {
  const src = join(ROOT, "src");
  for (const start of ["control/nic-worker.ts", "devices/index.ts"]) {
    const loaded = [...loadedBy(join(src, start))].map((file) => relative(src, file));
    assert.ok(loaded.length > 10, `${loaded}`);
    assert.ok(loaded.some((file) => file.startsWith("devices/")));
    assert.deepEqual(
      loaded.filter((file) => /^(compiler|ebpf)\//.test(file)),
      [],
      start,
    );
  }
});

test("no file of src outside devices names a built-in ring format", () => {
  const names = new RegExp(`\\b(${FORMATS.map(({ name }) => name).join("|")})\\b`);
  const src = join(ROOT, "src");
  const files = readdirSync(src, { recursive: true, encoding: "utf8" }).filter(
    (file) => /\.ts$/.test(file) && !/\.test\.ts$|\/testdata\//.test(file),
  );
  assert.ok(files.length > 200, `${files.length} files`);
  const folders = new RegExp(`^devices/(${FORMATS.map(({ name }) => name).join("|")})/`);
  const naming = files.filter(
    (file) =>
      !folders.test(file) &&
      file !== "devices/registry.ts" &&
      names.test(readFileSync(join(src, file), "utf8")),
  );
  assert.deepEqual(naming, []);
});

// Benches that need no machine of their own run to their end in full test runs, and find nothing absurd.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, type TestContext, test } from "node:test";
import { fileURLToPath } from "node:url";

const FULL = process.env.BPFHV_FULL === "1";
const clang = spawnSync("clang", ["--version"]).status === 0;
const skip = !FULL ? "long: script/test --full" : clang ? false : "there is no clang";
const folder = mkdtempSync(join(tmpdir(), "bpfhv-benches-"));
after(() => rmSync(folder, { recursive: true, force: true }));

/** Runs a bench and shows what it prints. */
function run(t: TestContext, name: string, ...args: string[]): string {
  const path = fileURLToPath(new URL(`../../bench/${name}.js`, import.meta.url));
  const { status, stdout, stderr } = spawnSync(process.execPath, [path, ...args], {
    encoding: "utf8",
  });
  assert.equal(status, 0, stderr);
  for (const line of stdout.trimEnd().split("\n")) t.diagnostic(line);
  return stdout;
}

function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[values.length >> 1]!;
}

test("compiled programs are far from the interpreter, and not far from machine code", {
  skip,
}, (t) => {
  const file = join(folder, "jit.json");
  run(t, "jit", "--rounds", "9", "--json", file);
  const rows = JSON.parse(readFileSync(file, "utf8")) as {
    program: string;
    raw: Record<"native" | "jit" | "interpreter", number[]>;
  }[];
  assert.equal(rows.length, 7);
  for (const { program, raw } of rows) {
    // Wide, since whatever else runs here is measured along: an engine that V8 did not optimise is 20 times slower.
    assert.ok(median(raw.jit) < 15 * median(raw.native), program);
    assert.ok(median(raw.interpreter) > 5 * median(raw.jit), program);
  }
});

test("our compiler's programs are beside clang's", { skip }, (t) => {
  assert.match(run(t, "compiler-vs-clang"), /txp/);
});

// Benches that need no machine of their own run to their end in full test runs, and find nothing
// absurd.
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

/** Runs a bench and shows its output. */
function run(t: TestContext, name: string, ...args: string[]): string {
  const path = fileURLToPath(new URL(`../../bench/${name}.js`, import.meta.url));
  const { status, stdout, stderr } = spawnSync(process.execPath, [path, ...args], {
    encoding: "utf8",
  });
  assert.equal(status, 0, stderr);
  for (const line of stdout.trimEnd().split("\n")) t.diagnostic(line);
  return stdout;
}

/** Returns the least time: other load only adds to it. */
function least(values: readonly number[]): number {
  return Math.min(...values);
}

/** Limits, as multiples of the run time of machine code of the same C, including vectors. */
const MOST: Readonly<Record<string, number>> = {
  checksum20: 3,
  classify: 3,
  publish: 3,
  fnv4096: 1.5,
  xorshift: 1.5,
  checksum4096: 6,
  sieve: 1.5,
};

test("compiled programs are far faster than interpreted ones and near machine code", {
  skip,
}, (t) => {
  const file = join(folder, "jit.json");
  run(t, "jit", "--rounds", "15", "--json", file);
  const rows = JSON.parse(readFileSync(file, "utf8")) as {
    program: string;
    raw: Record<"native" | "scalar" | "jit" | "interpreter", number[]>;
  }[];
  assert.deepEqual(
    rows.map(({ program }) => program),
    Object.keys(MOST),
  );
  for (const { program, raw } of rows) {
    const times = least(raw.jit) / least(raw.native);
    assert.ok(times < MOST[program]!, `${program}: ${times.toFixed(2)} times machine code`);
    assert.ok(least(raw.interpreter) > 50 * least(raw.jit), program);
  }
});

test("compiler's programs are compared with clang's", { skip }, (t) => {
  assert.match(run(t, "compiler-vs-clang"), /txp/);
});

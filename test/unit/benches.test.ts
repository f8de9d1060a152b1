/**
 * Every bench that needs no guest runs to its end, briefly, and finds nothing absurd. In full runs
 * the long one does, too, and compiled programs are held to their limits.
 */
import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { loadBenches, NAMES } from "../../bench/harness/registry.ts";
import { AIM, PROGRAMS } from "../../bench/rows/jit.ts";
import { assertRows, BENCH, runBench } from "../support/benches.ts";

const FULL = process.env.BPFHV_FULL === "1";
const folder = mkdtempSync(join(tmpdir(), "bpfhv-benches-"));
after(() => rmSync(folder, { recursive: true, force: true }));
const environment = { ...process.env, TMPDIR: folder, BPFHV_CACHE: join(folder, "cache") };

/** Its limits are held by control/memory.test.ts, and it takes as long as all others together. */
const LONG = ["jit", "memory", "start"];

for (const bench of await loadBenches(NAMES)) {
  if (bench.vm) continue;
  const long = LONG.includes(bench.name) && !FULL ? "long: script/test --full" : undefined;
  const problem = long ?? (await bench.problem?.());
  test(`bench ${bench.name} measures every row`, { skip: problem ?? false }, (t) => {
    const result = runBench(folder, environment, bench.name, "--quick");
    assertRows(bench, result);
    for (const { name, value } of result.rows) {
      t.diagnostic(`${name} ${value}`);
      assert.ok(value > 0, `${name}: ${value}`);
    }
  });
}

test("bench leaves no file and no process behind when it is interrupted", async () => {
  const child = spawn(process.execPath, [BENCH, "embedded", "--rounds", "1000"], {
    env: { ...environment, TMPDIR: mkdtempSync(join(folder, "interrupted-")) },
    stdio: ["ignore", "ignore", "pipe"],
  });
  const ended = new Promise((resolve) => child.once("close", resolve));
  child.stderr.once("data", () => setTimeout(() => child.kill("SIGINT"), 500));
  assert.equal(await ended, 130);
  const left = readdirSync(folder).filter((name) => name.startsWith("interrupted-"));
  assert.deepEqual(readdirSync(join(folder, left[0]!)), []);
  const { stdout } = spawnSync("ps", ["-eo", "args"], { encoding: "utf8" });
  assert.ok(!stdout.includes(`sample.js embedded sring 1000`));
});

test("bench refuses a revision that does not exist, with status 2", () => {
  const { status, stdout, stderr } = spawnSync(
    process.execPath,
    [BENCH, "compiler", "--against", "no-such-revision"],
    { encoding: "utf8", env: environment },
  );
  assert.deepEqual([status, stdout], [2, ""]);
  assert.match(stderr, /^script\/bench: --against no-such-revision: no such commit [^\n]+\n$/);
});

test("bench measures another revision beside this one, and removes it", {
  skip: FULL ? false : "long: script/test --full",
}, () => {
  const TMPDIR = mkdtempSync(join(folder, "against-"));
  const env = { ...environment, TMPDIR };
  const { header, rows } = runBench(folder, env, "compiler", "--quick", "--against", "HEAD");
  assert.match(header.against!, /^[0-9a-f]{12}$/);
  for (const { name, value, against } of rows) {
    assert.ok(against !== undefined && against.revision === header.against, name);
    assert.ok(Math.abs(against.ratio - value / against.value) < 1e-4, name);
  }
  assert.deepEqual(readdirSync(TMPDIR), []);
});

test("compiled programs are far faster than interpreted ones and near machine code", {
  skip: FULL ? false : "long: script/test --full",
}, () => {
  const { rows } = runBench(folder, environment, "jit", "--rounds", "5");
  // Other load only adds to a time.
  const least = (name: string): number => Math.min(...rows.find((r) => r.name === name)!.raw);
  for (const [program, kind] of Object.entries(PROGRAMS)) {
    const ratio = least(`${program}/jit`) / least(`${program}/native`);
    assert.ok(ratio < AIM[kind], `${program}: ${ratio.toFixed(2)} times machine code`);
    assert.ok(least(`${program}/interpreter`) > 50 * least(`${program}/jit`), program);
  }
});

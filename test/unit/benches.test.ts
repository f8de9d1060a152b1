/**
 * Every bench that needs no guest runs to its end, briefly, and finds nothing absurd. In full runs
 * compiled programs are held to their limits.
 */
import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { fileURLToPath } from "node:url";
import type { Result } from "../../bench/harness/bench.ts";
import { loadBenches, NAMES } from "../../bench/harness/registry.ts";
import { AIM, PROGRAMS } from "../../bench/rows/jit.ts";

const MAIN = fileURLToPath(new URL("../../bench/main.js", import.meta.url));
const FULL = process.env.BPFHV_FULL === "1";
/** Every row was measured; on a busy machine, with a control that was not flat. */
const RAN = [0, 3];
const folder = mkdtempSync(join(tmpdir(), "bpfhv-benches-"));
after(() => rmSync(folder, { recursive: true, force: true }));
const environment = { ...process.env, TMPDIR: folder, BPFHV_CACHE: join(folder, "cache") };

function run(name: string, ...words: string[]): Result {
  const json = join(folder, `${name}.json`);
  const { status, stdout, stderr } = spawnSync(
    process.execPath,
    [MAIN, name, "--json", json, ...words],
    { encoding: "utf8", env: environment },
  );
  assert.ok(RAN.includes(status!), `${name}: status ${status}\n${stdout}${stderr}`);
  assert.match(stdout, new RegExp(`^${name}: `, "m"));
  const result = JSON.parse(readFileSync(json, "utf8")) as Result;
  const counted = result.rows.every((row) => row.counted);
  assert.equal(status, counted ? 0 : 3);
  return result;
}

for (const bench of await loadBenches(NAMES)) {
  if (bench.vm) continue;
  const problem = await bench.problem?.();
  test(`bench ${bench.name} measures every row`, { skip: problem ?? false }, (t) => {
    const { header, rows, controls } = run(bench.name, "--quick");
    assert.deepEqual([header.bench, header.rounds, header.quick], [bench.name, 1, true]);
    assert.ok(header.machine.steal >= 0 && header.machine.steal <= 1);
    const names = rows.map(({ name }) => name);
    // Without the right to load programs the kernel is not measured.
    const expected = bench.rows.map(({ name }) => name).filter((name) => !/\/kernel$/.test(name));
    assert.deepEqual(
      names.filter((name) => !/\/kernel$/.test(name)),
      expected,
    );
    for (const { name, value, raw, control } of rows) {
      t.diagnostic(`${name} ${value}`);
      assert.ok(value > 0 && raw.length === 1, `${name}: ${value}`);
      assert.ok(controls[control] !== undefined, `${name}: control ${control}`);
    }
  });
}

test("bench leaves no file and no process behind when it is interrupted", async () => {
  const child = spawn(process.execPath, [MAIN, "embedded", "--rounds", "1000"], {
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

test("compiled programs are far faster than interpreted ones and near machine code", {
  skip: FULL ? false : "long: script/test --full",
}, () => {
  const { rows } = run("jit", "--rounds", "5");
  // Other load only adds to a time.
  const least = (name: string): number => Math.min(...rows.find((r) => r.name === name)!.raw);
  for (const [program, kind] of Object.entries(PROGRAMS)) {
    const ratio = least(`${program}/jit`) / least(`${program}/native`);
    assert.ok(ratio < AIM[kind], `${program}: ${ratio.toFixed(2)} times machine code`);
    assert.ok(least(`${program}/interpreter`) > 50 * least(`${program}/jit`), program);
  }
});

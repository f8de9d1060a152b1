/** Runs a bench as `script/bench` does, for tests. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { Bench, Result } from "../../bench/harness/bench.ts";

export const BENCH = fileURLToPath(new URL("../../bench/main.js", import.meta.url));
/** All rows count; or on a busy machine, not all. */
const STATUS = { counted: 0, notCounted: 3 } as const;

/** @param folder for the result */
export function runBench(
  folder: string,
  env: NodeJS.ProcessEnv,
  name: string,
  ...words: string[]
): Result {
  const json = join(folder, `${name}.json`);
  const { status, stdout, stderr } = spawnSync(
    process.execPath,
    [BENCH, name, "--json", json, ...words],
    { encoding: "utf8", env },
  );
  assert.ok(status === 0 || status === 3, `${name}: status ${status}\n${stdout}${stderr}`);
  assert.match(stdout, new RegExp(`^${name}: `, "m"));
  const result = JSON.parse(readFileSync(json, "utf8")) as Result;
  const counted = result.rows.every((row) => row.counted);
  assert.equal(status, counted ? STATUS.counted : STATUS.notCounted);
  return result;
}

/** Every row was measured, but for what a short run or this machine leaves out. */
export function assertRows(
  bench: Bench,
  { header, rows, controls }: Result,
  leftOut: RegExp = /\/kernel$/,
): void {
  assert.deepEqual([header.bench, header.rounds, header.quick], [bench.name, 1, true]);
  assert.ok(header.machine.steal >= 0 && header.machine.steal <= 1);
  assert.deepEqual(
    rows.map(({ name }) => name).filter((name) => !leftOut.test(name)),
    bench.rows.map(({ name }) => name).filter((name) => !leftOut.test(name)),
  );
  for (const { name, value, raw, control } of rows) {
    assert.ok(Number.isFinite(value) && value >= 0 && raw.length > 0, `${name}: ${value}`);
    assert.ok(controls[control] !== undefined, `${name}: control ${control}`);
  }
}

/**
 * Figures in pages are those of recorded results: `script/bench --write` writes both, and nobody
 * edits one of them by hand.
 */
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import type { Result, Sample } from "../../bench/harness/bench.ts";
import { disturbance, ROOT } from "../../bench/harness/machine.ts";
import { blocks, blockText, pages, recorded } from "../../bench/harness/pages.ts";
import { loadBenches, NAMES } from "../../bench/harness/registry.ts";
import { FIXED_WORK, makeResult } from "../../bench/harness/rows.ts";
import { judge } from "../../bench/harness/statistics.ts";
import { bench as compiler } from "../../bench/rows/compiler.ts";

const benches = await loadBenches(NAMES);

test("registry names every file of bench/rows", () => {
  const files = readdirSync(join(ROOT, "bench/rows")).map((file) => file.replace(/\.ts$/, ""));
  assert.deepEqual(files.sort(), [...NAMES].sort());
  for (const [i, { name }] of benches.entries()) assert.equal(name, NAMES[i]);
});

test("every bench has a recorded result and a table in a page", () => {
  for (const { name } of benches) {
    assert.equal(recorded(name)?.header.bench, name, `script/bench ${name} --write`);
    assert.ok(
      blocks().some(({ bench }) => bench === name),
      `no page has <!-- bench:${name} -->`,
    );
  }
  const files = readdirSync(join(ROOT, "bench/results"));
  assert.deepEqual(files.sort(), NAMES.map((name) => `${name}.json`).sort());
});

test("every table of figures is what the recorded result gives", () => {
  for (const { page, bench: name, table, text } of blocks()) {
    const bench = benches.find((each) => each.name === name);
    assert.ok(bench !== undefined, `${page}: no bench "${name}"`);
    const expected = blockText(bench, table, recorded(name)!);
    assert.equal(text, expected, `${page}: script/bench ${name} --write makes this table`);
  }
});

test("every marker of a table is closed, and its name is known", () => {
  for (const page of pages()) {
    const text = readFileSync(join(ROOT, page), "utf8");
    const opened = [...text.matchAll(/^<!-- bench:/gm)].length;
    const closed = [...text.matchAll(/^<!-- \/bench -->/gm)].length;
    const found = blocks().filter((block) => block.page === page).length;
    assert.deepEqual([opened, closed], [found, found], page);
  }
});

test("recorded counts of the compiler are those of this tree", async () => {
  const samples = compiler.parts.map((part) => compiler.sample(part, { quick: true, round: 0 }));
  const values = Object.assign({}, ...(await Promise.all(samples)).map((each) => each.values));
  const rows = recorded("compiler")!.rows.map(({ name, value }) => [name, value]);
  assert.deepEqual(Object.fromEntries(rows), values, "script/bench compiler --write");
});

const MACHINE = recorded("compiler")!.header.machine;

/** A bench of one part, whose control goes from `first` to `last`. */
function resultOf(
  first: number,
  last: number,
  disturbance: string | null = null,
  steady?: true,
): Pick<Result, "controls" | "rows"> {
  const sample = (ours: number): Sample => ({
    values: { ours, theirs: 10 },
    controls: { theirs: [first, last] },
  });
  const spec = { unit: "ns", control: "theirs" };
  const { steady: _, ...parts } = compiler;
  const bench = {
    ...{ ...parts, ...(steady ? { steady } : {}), limit: 0.1 },
    rows: [
      { ...spec, name: "theirs" },
      { ...spec, name: "ours", baseline: "theirs", aim: { of: "ratio", most: 2 } as const },
      { name: "fixed", unit: "ns" },
    ],
  };
  const ours = [[sample(15)], [sample(40)], [sample(16)]];
  return makeResult(bench, { ours, fixed: [[1, 1]], disturbance });
}

test("row is the median of all iterations, with its ratio to the baseline and its aim", () => {
  const [, row] = resultOf(10, 10.5).rows;
  assert.deepEqual(
    [row!.value, row!.ratio, row!.met, row!.raw, row!.ratios],
    [16, 1.6, true, [15, 40, 16], [1.5, 4, 1.6]],
  );
  assert.deepEqual([row!.counted, row!.why], [true, null]);
});

test("row is not counted when its control moved, and says by how much", () => {
  const { rows, controls } = resultOf(10, 12);
  assert.equal(controls.theirs!.flat, false);
  assert.equal(controls[FIXED_WORK]!.flat, true);
  assert.deepEqual(
    rows.map(({ counted }) => counted),
    [false, false],
  );
  assert.match(rows[1]!.why!, /"theirs" was not flat: moved 20\.0 %, .*limit 10\.0 %/);
});

test("row of a time is not counted when other processes kept the machine busy", () => {
  const quiet = disturbance({ ...MACHINE, others: 0.1, steal: 0.01 });
  const busy = disturbance({ ...MACHINE, others: 0.1, steal: 0.2 });
  assert.equal(quiet, null);
  assert.match(busy!, /used 10\.0 % of the CPUs' time, and the host took 20\.0 %/);
  const counted = (steady?: true) => resultOf(10, 10, busy, steady).rows.map((row) => row.counted);
  assert.deepEqual(counted(), [false, false]);
  assert.deepEqual(counted(true), [true, true]);
});

test("control is not flat when it spreads, moves, or is not a number", () => {
  assert.equal(judge([10, 10, 10], [10, 10.5, 10], 0.1).flat, true);
  assert.equal(judge([10, 20, 30], [30, 20, 10], 0.1).flat, false);
  assert.equal(judge([10, 10], [8, 8], 0.1).flat, false);
  assert.equal(judge([10], [Number.NaN], 0.1).flat, false);
  assert.equal(judge([], [], 0.1).flat, false);
});

test("table says why it is not to be relied on when its rows do not count", () => {
  const result = recorded("compiler")!;
  const [{ control }] = result.rows;
  const controls = { ...result.controls, [control]: judge([8], [10], 0.1) };
  const rows = result.rows.map((row) => ({ ...row, counted: row.control !== control }));
  const text = blockText(compiler, "", { ...result, controls, rows });
  assert.match(
    text,
    /^\*\*4 rows are not to be relied on\.\*\* Controls that were not flat: sring, /m,
  );
  assert.match(text, /\(moved 25\.0 %/);
  assert.doesNotMatch(blockText(compiler, "", result), /relied on/);
});

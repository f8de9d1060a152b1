/**
 * The tables in docs/history name tests that exist, and leave out no fault. A row is
 * `| ID | the original | here | test |`; a test is a title (or a part of one) in double quotes,
 * after the file that it is in.
 */
import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

const ROOT = fileURLToPath(new URL("../../..", import.meta.url));

/** Faults by letter: their number, and the default folder or file of their tests. */
const TABLES = [
  { letter: "R", count: 18, where: "src/suite/rings.ts" },
  { letter: "B", count: 21, where: "src/frontends/proxy/" },
  { letter: "S", count: 6, where: "src/frontends/proxy/" },
  { letter: "V", count: 17, where: "src/guest/traffic.test.ts" },
  { letter: "Q", count: 7, where: "src/guest/traffic.test.ts" },
] as const;

const FAULTS = "docs/history/faults-of-the-original.md";
const SCOPE = "docs/history/scope-of-the-original.md";

/** Faults of the guest driver: the last cell may name a test as `"title" (file in test/vm)`. */
const DRIVER = [
  { letter: "G", count: 22 },
  { letter: "D", count: 2 },
] as const;

/** Rows without a test: done, planned or non-goal. */
const WORDS = [
  { letter: "T", count: 9 },
  { letter: "A", count: 18 },
  { letter: "F", count: 9 },
] as const;

const text = (path: string): string => readFileSync(join(ROOT, path), "utf8");

/** Returns the cells of a fault's row. */
function row(page: string, id: string): string[] {
  const rows = text(page)
    .split("\n")
    .filter((line) => line.startsWith(`| ${id} |`));
  assert.equal(rows.length, 1, `${id} has one row in ${page}`);
  return rows[0].split(" | ").map((cell) => cell.replace(/^\| | \|$/g, ""));
}

/** Returns the files and titles that a cell names. A title is in the file named last before it. */
function named(cell: string, where: string): { file: string; title: string | null }[] {
  const found: { file: string; title: string | null }[] = [];
  let file = where;
  for (const [, path, title] of cell.matchAll(/`([^`]+\.ts)`|"([^"]+)"/g)) {
    if (path !== undefined) file = path.includes("/") ? path : join(where, path);
    found.push({ file, title: title ?? null });
  }
  return found;
}

for (const { letter, count, where } of TABLES) {
  test(`fault names a test that exists, or says why there is none: ${letter}1 to ${letter}${count}`, () => {
    for (let n = 1; n <= count; n++) {
      const id = `${letter}${n}`;
      const cells = row(FAULTS, id);
      assert.equal(cells.length, 4, `${id}: four cells`);
      const tests = named(cells[3], where);
      for (const { file, title } of tests) {
        assert.ok(existsSync(join(ROOT, file)), `${id}: there is no ${file}`);
        if (title !== null)
          assert.ok(text(file).includes(title), `${id}: no "${title}" in ${file}`);
      }
      const other = /^as [A-Z]\d+/.test(cells[3]) || cells[3] === "does not apply";
      assert.ok(tests.length > 0 || other, `${id}: a test, "as" another one, or "does not apply"`);
    }
  });
}

test("fault of the guest driver has a row, and names tests that exist", () => {
  let tests = 0;
  for (const { letter, count } of DRIVER) {
    for (let n = 1; n <= count; n++) {
      const cells = row(FAULTS, `${letter}${n}`);
      assert.equal(cells.length, 3, `${letter}${n}: three cells`);
      for (const [, title, file] of cells[2].matchAll(/"([^"]+)" \(([\w-]+)\)/g)) {
        assert.ok(text(`test/vm/${file}.test.ts`).includes(title), `${letter}${n}: "${title}"`);
        tests++;
      }
    }
  }
  assert.ok(tests >= 3, `${tests} tests`);
});

test("open end of the original is done, planned or a non-goal", () => {
  for (const { letter, count } of WORDS) {
    for (let n = 1; n <= count; n++) {
      const cells = row(SCOPE, `${letter}${n}`);
      assert.match(cells[2], /^\*\*(done|planned|non-goal)\*\*/, `${letter}${n}`);
    }
  }
});

/**
 * The tables of the original's defects name tests that exist, and leave out no defect: a row is `| ID | the original |
 * here | test |`, where a test is a title (or a part of it) in double quotes, behind the file that it is in.
 */
import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

const ROOT = fileURLToPath(new URL("../../..", import.meta.url));

/** Defects by page, the folder or file where its tests are unless said otherwise, and how many there are. */
const TABLES = [
  { page: "rings.md", letter: "R", count: 18, where: "src/guest/rings.test.ts" },
  { page: "coming-from-the-original.md", letter: "B", count: 21, where: "src/frontends/proxy/" },
  { page: "coming-from-the-original.md", letter: "S", count: 6, where: "src/frontends/proxy/" },
  {
    page: "coming-from-the-original.md",
    letter: "V",
    count: 17,
    where: "src/guest/traffic.test.ts",
  },
  {
    page: "coming-from-the-original.md",
    letter: "Q",
    count: 7,
    where: "src/guest/traffic.test.ts",
  },
] as const;

/** Rows that need no test but a word: done, planned or non-goal. */
const WORDS = [
  { letter: "T", count: 9 },
  { letter: "A", count: 18 },
  { letter: "F", count: 9 },
] as const;

const text = (path: string): string => readFileSync(join(ROOT, path), "utf8");

/** Cells of the row of a defect. */
function row(page: string, id: string): string[] {
  const rows = text(`docs/${page}`)
    .split("\n")
    .filter((line) => line.startsWith(`| ${id} |`));
  assert.equal(rows.length, 1, `${id} has one row in docs/${page}`);
  return rows[0].split(" | ").map((cell) => cell.replace(/^\| | \|$/g, ""));
}

/** Files and titles that a cell names: a title is in the file named last before it. */
function named(cell: string, where: string): { file: string; title: string | null }[] {
  const found: { file: string; title: string | null }[] = [];
  let file = where;
  for (const [, path, title] of cell.matchAll(/`([^`]+\.test\.ts)`|"([^"]+)"/g)) {
    if (path !== undefined) file = path.includes("/") ? path : join(where, path);
    found.push({ file, title: title ?? null });
  }
  return found;
}

for (const { page, letter, count, where } of TABLES) {
  test(`docs/${page}: each of ${letter}1 to ${letter}${count} names tests that exist, or says why there is none`, () => {
    for (let n = 1; n <= count; n++) {
      const id = `${letter}${n}`;
      const cells = row(page, id);
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

test("each open end of the original's is done, planned or a non-goal", () => {
  for (const { letter, count } of WORDS) {
    for (let n = 1; n <= count; n++) {
      const cells = row("coming-from-the-original.md", `${letter}${n}`);
      assert.match(cells[2], /^\*\*(done|planned|non-goal)\*\*/, `${letter}${n}`);
    }
  }
});

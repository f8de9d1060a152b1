/**
 * The field's terms in everything that people read: no phrase of the last column of
 * docs/glossary.md's tables in code, comments, messages, test names and documents; no comment
 * beyond 100 columns.
 */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { parseSync } from "oxc-parser";

const ROOT = fileURLToPath(new URL("../../..", import.meta.url));
const GLOSSARY = "docs/glossary.md";
const MAX_COLUMNS = 100;

/** The glossary itself, this test's samples, and the compiler's golden files. */
const EXEMPT = [GLOSSARY, "test/unit/language.test.ts", "src/compiler/testdata/", "LICENSE"];

/** Texts that people write: sources, scripts, pages, and files without an ending. */
const IS_TEXT = /(\.(ts|mjs|c|h|md|rst|sh|conf|config)|\/[\w-]+)$/;

const git = spawnSync("git", ["ls-files"], { cwd: ROOT, encoding: "utf8" });
const files = git.stdout
  .split("\n")
  .filter((file) => IS_TEXT.test(`/${file}`) && existsSync(join(ROOT, file)))
  .filter((file) => !EXEMPT.some((path) => file.startsWith(path)));
const withoutGit = files.length === 0 && "not a git checkout: the files are not known";

const text = (file: string): string => readFileSync(join(ROOT, file), "utf8");

interface Phrase {
  readonly shown: string;
  readonly pattern: RegExp;
}

/** `phrase` or `/regular expression/`; spaces match any white space. */
function phrase(shown: string): Phrase {
  const expression = /^\/(.*)\/$/.exec(shown)?.[1];
  const escaped = shown.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
  const source = (expression ?? `\\b${escaped}\\b`).replaceAll(" ", "\\s+");
  return { shown, pattern: new RegExp(source, "gi") };
}

/** Phrases between backticks in the last cells of the tables of the glossary. */
function readGlossary(): Phrase[] {
  const rows = text(GLOSSARY)
    .split("\n")
    .filter((line) => line.startsWith("| ") && !line.startsWith("| ---"));
  const cells = rows.map((row) => row.split(/(?<!\\)\|/).at(-2) ?? "");
  const shown = cells.flatMap((cell) => [...cell.matchAll(/`([^`]+)`/g)].map((m) => m[1]));
  return [...new Set(shown)].map((one) => phrase(one.replaceAll("\\|", "|")));
}

/** The same characters at the same places, but that comments and strings go on across lines. */
function joinLines(source: string): string {
  const blank = (all: string): string => all.replace(/[^\n]/g, " ");
  return source
    .replace(/["'`] \+\n\s*["'`]/g, blank)
    .replace(/\n[ \t]*(?:\*(?!\/)|\/\/|#)?[ \t]?/g, blank);
}

interface Finding {
  readonly line: number;
  readonly shown: string;
}

function findPhrases(source: string, phrases: readonly Phrase[]): Finding[] {
  const joined = joinLines(source);
  return phrases.flatMap(({ shown, pattern }) =>
    [...joined.matchAll(pattern)].map((match) => ({
      line: joined.slice(0, match.index).split("\n").length,
      shown,
    })),
  );
}

/** Lines, counted from 0, that a comment stands on. */
function commentLines(file: string, source: string): Set<number> {
  const lines = new Set<number>();
  const add = (start: number, end: number): void => {
    const first = source.slice(0, start).split("\n").length - 1;
    const count = source.slice(start, end).split("\n").length;
    for (let i = 0; i < count; i++) lines.add(first + i);
  };
  if (/\.(ts|mjs)$/.test(file)) {
    for (const { start, end } of parseSync(file, source).comments) add(start, end);
  } else if (/\.[ch]$/.test(file)) {
    for (const { index, 0: all } of source.matchAll(/\/\*[\s\S]*?\*\/|\/\/.*/g)) {
      add(index, index + all.length);
    }
  } else {
    for (const { index } of source.matchAll(/^[ \t]*#/gm)) add(index, index);
  }
  return lines;
}

/** A tab is 8 columns, as in the kernel. */
const columns = (line: string): number => line.replaceAll("\t", " ".repeat(8)).length;

function longComments(file: string): Finding[] {
  const source = text(file);
  const lines = source.split("\n");
  return [...commentLines(file, source)]
    .filter((line) => columns(lines[line]) > MAX_COLUMNS)
    .map((line) => ({ line: line + 1, shown: `comment of ${columns(lines[line])} columns` }));
}

const found = new Map<string, Finding[]>();
const phrases = readGlossary();
for (const file of files) {
  const long = /\.(ts|mjs|c|h)$|^script\//.test(file) ? longComments(file) : [];
  found.set(file, [...findPhrases(text(file), phrases), ...long]);
}

test("glossary has one line for each of some 40 terms, with who defines it", () => {
  const [, terms] = text(GLOSSARY).split("## Terms");
  const rows = terms
    .split("## Plain")[0]
    .split("\n")
    .filter((line) => /^\| (?!term|---)/.test(line));
  assert.ok(rows.length >= 40, `${rows.length} terms`);
  for (const row of rows) {
    const cells = row.split(/(?<!\\)\|/).map((cell) => cell.trim());
    assert.equal(cells.length, 6, row);
    assert.ok(cells[2] !== "" && cells[3] !== "", `${cells[1]}: meaning, and who defines it`);
  }
  assert.ok(phrases.length > 40, `${phrases.length} phrases`);
});

test("finder reports a phrase when it is split by a line's end or a string's", () => {
  const sample = [
    "/** A value that",
    " * cannot",
    " * be, and packets in",
    " * another's name. */",
    'const message = "the driver is " +',
    '  "told of it";',
  ].join("\n");
  const shown = findPhrases(sample, phrases);
  assert.deepEqual(
    shown.map(({ line }) => line).sort(),
    [2, 3, 5],
    shown.map((one) => one.shown).join(", "),
  );
});

test("finder reports nothing when a phrase has another sense", () => {
  const sample =
    "There is no file. It is no longer there, and is no slower than before. The file cannot be read. " +
    "The round trip took 2 ms in each round trip. The worker is told to stop.";
  assert.deepEqual(findPhrases(sample, phrases), []);
});

test("comments, messages, test names and pages use the glossary's terms", {
  skip: withoutGit,
}, () => {
  const wrong = files.flatMap((file) =>
    found.get(file)!.map(({ line, shown }) => `${file}:${line}: ${shown}`),
  );
  assert.ok(files.length > 500, `${files.length} files`);
  assert.deepEqual(wrong, []);
});

/**
 * Figures in Markdown pages, each block between `<!-- bench:NAME -->` and `<!-- /bench -->`, or
 * `bench:NAME/TABLE` for one of several. Only `script/bench --write` writes them, from the recorded
 * result of the bench.
 */
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Bench, Control, Result } from "./bench.ts";
import { ROOT } from "./machine.ts";
import { caption } from "./report.ts";
import { movement } from "./statistics.ts";

/** Folders with pages. */
const FOLDERS = ["bench", "docs", "src", "driver", "test", "examples"];
const COLUMNS = 115;
const BLOCK = /<!-- bench:([a-z-]+)(?:\/([a-z-]+))? -->\n([\s\S]*?)<!-- \/bench -->/g;

export function pages(): string[] {
  const top = readdirSync(ROOT).filter((name) => name.endsWith(".md"));
  const inner = FOLDERS.flatMap((folder) =>
    readdirSync(join(ROOT, folder), { recursive: true, encoding: "utf8" })
      .filter((name) => name.endsWith(".md"))
      .map((name) => join(folder, name)),
  );
  return [...top, ...inner].sort();
}

export interface Block {
  readonly page: string;
  readonly bench: string;
  /** "" if the bench has one only. */
  readonly table: string;
  readonly text: string;
}

export function blocks(): Block[] {
  return pages().flatMap((page) =>
    [...readFileSync(join(ROOT, page), "utf8").matchAll(BLOCK)].map((found) => {
      const [, bench, table = "", text] = found;
      return { page, bench: bench!, table, text: text! };
    }),
  );
}

const resultPath = (name: string): string => join(ROOT, "bench/results", `${name}.json`);

export function recorded(name: string): Result | undefined {
  const path = resultPath(name);
  return existsSync(path) ? (JSON.parse(readFileSync(path, "utf8")) as Result) : undefined;
}

/** Arrays of numbers on one line: a run then changes as many lines as it has rows. */
export function record(result: Result): void {
  const text = JSON.stringify(result, null, 1);
  const joined = text.replace(/\[[-\d.,\s]+\]/g, (list) => list.replace(/\s+/g, " "));
  writeFileSync(resultPath(result.header.bench), `${joined}\n`);
}

function wrap(text: string): string {
  const lines = [""];
  for (const word of text.split(" ")) {
    const last = lines.at(-1)!;
    if (last !== "" && last.length + word.length >= COLUMNS) lines.push(word);
    else lines[lines.length - 1] = last === "" ? word : `${last} ${word}`;
  }
  return lines.join("\n");
}

const inWords = (name: string, control: Control | undefined): string =>
  control === undefined ? `${name} (missing)` : `${name} (${movement(control)})`;

/** Names the controls of rows that do not count: under the first table with what they did. */
function doubts({ rows, controls }: Result, isFirst: boolean): string[] {
  const doubtful = rows.filter(({ counted }) => !counted);
  if (doubtful.length === 0) return [];
  const which = doubtful.length === rows.length ? "All rows" : `${doubtful.length} rows`;
  const head = `**${which} are not to be relied on`;
  if (!isFirst) return [wrap(`${head}, as above.**`)];
  const names = [...new Set(doubtful.map(({ control }) => control))];
  const moved = names.filter((name) => !controls[name]?.flat);
  const flat = `Controls that were not flat: ${moved.map((n) => inWords(n, controls[n])).join("; ")}.`;
  const busy = doubtful.find(({ control }) => controls[control]?.flat)?.why;
  const why = [...(moved.length > 0 ? [flat] : []), ...(busy ? [`Busy machine: ${busy}.`] : [])];
  return [wrap(`${head}.** ${why.join(" ")}`)];
}

/** What belongs between the markers. The bench's own table has the conditions under it. */
export function blockText(bench: Bench, table: string, result: Result): string {
  const make = bench.tables[table];
  if (make === undefined) throw new Error(`bench ${bench.name} has no table "${table}"`);
  const about = `Medians, by \`script/bench ${bench.name}\`: ${caption(result)}.`;
  const parts = [
    make(result),
    ...(table === "" ? [wrap(about)] : []),
    ...doubts(result, table === ""),
  ];
  return `${parts.join("\n\n")}\n`;
}

/** Rewrites a bench's blocks. @returns the pages that changed */
export function writeBlocks(bench: Bench, result: Result): string[] {
  return pages().filter((page) => {
    const path = join(ROOT, page);
    const before = readFileSync(path, "utf8");
    const after = before.replace(BLOCK, (whole, name: string, table = "") => {
      if (name !== bench.name) return whole;
      const marker = table === "" ? name : `${name}/${table}`;
      return `<!-- bench:${marker} -->\n${blockText(bench, table, result)}<!-- /bench -->`;
    });
    if (after !== before) writeFileSync(path, after);
    return after !== before;
  });
}

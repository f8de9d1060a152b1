/**
 * Inputs that once failed, one file each. Small ones are
 * kept in the tree and run by every test run.
 */
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { Input } from "./target.ts";

/** In the sources, relative to dist/test/fuzz. */
export const CORPUS = fileURLToPath(new URL("../../../test/fuzz/corpus/", import.meta.url));
/** Larger entries stay out of the tree. */
const LARGE_BYTES = 64 << 10;

export interface CorpusEntry {
  readonly target: string;
  /** Seed of the campaign; below: the number of the case in it. */
  readonly seed: number;
  readonly case: number;
  readonly error: string;
  /** In their order. The last one is that of the case. */
  readonly inputs: readonly Input[];
}

/**
 * Writes the entry to the corpus, or to the folder for temporary
 * files if it is large. @returns the file
 */
export function keep(entry: CorpusEntry, corpus: string): string {
  const text = `${JSON.stringify(entry)}\n`;
  const digest = createHash("sha256").update(JSON.stringify(entry.inputs)).digest("hex");
  const folder = text.length > LARGE_BYTES ? tmpdir() : corpus;
  mkdirSync(folder, { recursive: true });
  const file = join(folder, `${entry.target}-${digest.slice(0, 12)}.json`);
  writeFileSync(file, text);
  return file;
}

export function corpusFiles(): string[] {
  if (!existsSync(CORPUS)) return [];
  const names = readdirSync(CORPUS).filter((name) => name.endsWith(".json"));
  return names.sort().map((name) => join(CORPUS, name));
}

export const readEntry = (file: string): CorpusEntry =>
  JSON.parse(readFileSync(file, "utf8")) as CorpusEntry;

/**
 * Source lines in objects: sections .BTF (types and strings) and .BTF.ext (instructions to lines),
 * as described in the kernel's Documentation/bpf/btf.rst. Types are written only as needed for
 * functions, and not read.
 *
 *     .BTF      magic 0xeb9f, version, flags, header length | type offset, length |
 *               string offset, length | …
 *     .BTF.ext  the same start | func_info offset, length | line_info offset, length | …
 *     line_info record size | per section: name, count |
 *               records: instruction, file, text, line << 10 | column
 */
import { type ElfSection, elfError, stringsOf, viewOf } from "./elf.ts";
import { SLOT } from "./instruction.ts";
import type { Program, SourceLine } from "./program.ts";

const MAGIC = 0xeb9f;
const BTF_HEADER = 24;
const EXT_HEADER = 24;
const LINE_RECORD = 16;
const FUNC_RECORD = 8;
const KIND_FUNC = 12;
const KIND_FUNC_PROTO = 13;
const GLOBAL = 1;
const MAX_COLUMN = 1023;

/** A source line, and the first slot of its section that it applies to. */
export interface LineAt {
  readonly slot: number;
  readonly source: SourceLine;
}

/** Returns the lines of each section by its name, sorted by slot. @throws EbpfError ELF */
export function readLines(btf: ElfSection, ext: ElfSection): Map<string, LineAt[]> {
  const strings = stringsOf(part(btf.content, ".BTF", BTF_HEADER, 16));
  const table = part(ext.content, ".BTF.ext", EXT_HEADER, 16);
  if (table.length === 0) return new Map();
  if (table.length < 4) throw elfError(".BTF.ext: line information is truncated");
  const view = viewOf(table);
  const recordSize = view.getUint32(0, true);
  if (recordSize < LINE_RECORD || recordSize > 256) {
    throw elfError(`.BTF.ext: lines of ${recordSize} bytes`);
  }
  const found = new Map<string, LineAt[]>();
  for (let at = 4; at < table.length; ) {
    if (at + 8 > table.length) throw elfError(".BTF.ext: line information is truncated");
    const name = strings(view.getUint32(at, true));
    const count = view.getUint32(at + 4, true);
    at += 8;
    if (count * recordSize > table.length - at) {
      throw elfError(`.BTF.ext: ${count} lines for ${name} exceed the section`);
    }
    const lines = found.get(name) ?? [];
    for (let i = 0; i < count; i++) lines.push(readRecord(view, at + i * recordSize, strings));
    found.set(name, lines);
    at += count * recordSize;
  }
  for (const lines of found.values()) lines.sort((a, b) => a.slot - b.slot);
  return found;
}

function readRecord(view: DataView, at: number, strings: (offset: number) => string): LineAt {
  const place = view.getUint32(at + 12, true);
  return {
    slot: Math.floor(view.getUint32(at, true) / SLOT),
    source: {
      file: strings(view.getUint32(at + 4, true)),
      line: place >>> 10,
      column: place & MAX_COLUMN,
      text: strings(view.getUint32(at + 8, true)).trim(),
    },
  };
}

/** Returns the part of a section whose offset and length are at `at` of its header. */
function part(content: Uint8Array, name: string, header: number, at: number): Uint8Array {
  const view = viewOf(content);
  if (content.length < header || view.getUint16(0, true) !== MAGIC) {
    throw elfError(`${name} is not BTF, little endian`);
  }
  const start = view.getUint32(4, true) + view.getUint32(at, true);
  const end = start + view.getUint32(at + 4, true);
  if (end > content.length) throw elfError(`${name} is truncated`);
  return content.subarray(start, end);
}

/** A string table: each string once, with its offset. Offset 0 is the empty string. */
export class StringTable {
  readonly #offsets = new Map<string, number>([["", 0]]);
  readonly #chunks: Buffer[] = [Buffer.from([0])];
  #length = 1;

  add(text: string): number {
    const known = this.#offsets.get(text);
    if (known !== undefined) return known;
    const at = this.#length;
    const chunk = Buffer.from(`${text}\0`);
    this.#chunks.push(chunk);
    this.#length += chunk.length;
    this.#offsets.set(text, at);
    return at;
  }

  get bytes(): Uint8Array {
    return Buffer.concat(this.#chunks);
  }
}

/**
 * Returns the sections .BTF and .BTF.ext of programs, each of which is in the section of its name.
 */
export function writeLines(programs: readonly Program[]): { btf: Uint8Array; ext: Uint8Array } {
  const strings = new StringTable();
  // Type 1: a function of unknown arguments; type 2 + i: program i.
  const types = [0, KIND_FUNC_PROTO << 24, 0];
  for (const { name } of programs) types.push(strings.add(name), (KIND_FUNC << 24) | GLOBAL, 1);
  const functions = [FUNC_RECORD];
  const lines = [LINE_RECORD];
  for (const [i, program] of programs.entries()) {
    functions.push(strings.add(program.name), 1, 0, 2 + i);
    if ((program.lines?.size ?? 0) === 0) continue;
    for (const word of lineWords(program, strings)) lines.push(word);
  }
  const table = strings.bytes;
  const btf = withHeader([0, 4 * types.length, 4 * types.length, table.length], types);
  const ext = withHeader(
    [0, 4 * functions.length, 4 * functions.length, 4 * lines.length],
    [...functions, ...lines],
  );
  return { btf: Buffer.concat([btf, table]), ext };
}

function lineWords(program: Program, strings: StringTable): number[] {
  const entries = [...program.lines!].sort(([a], [b]) => a - b);
  return [
    strings.add(program.name),
    entries.length,
    ...entries.flatMap(([slot, { file, line, column, text }]) => [
      slot * SLOT,
      strings.add(file),
      strings.add(text),
      (line << 10) | Math.min(column, MAX_COLUMN),
    ]),
  ];
}

/** magic, version 1, flags 0, header length 24, four offsets and lengths, then the words. */
function withHeader(parts: readonly number[], words: readonly number[]): Uint8Array {
  const bytes = new Uint8Array(BTF_HEADER + 4 * words.length);
  const view = viewOf(bytes);
  view.setUint32(0, MAGIC | (1 << 16), true);
  view.setUint32(4, BTF_HEADER, true);
  for (const [i, value] of parts.entries()) view.setUint32(8 + 4 * i, value, true);
  for (const [i, word] of words.entries()) view.setUint32(BTF_HEADER + 4 * i, word, true);
  return bytes;
}

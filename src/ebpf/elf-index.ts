/**
 * Indexes an object for the linker: functions, relocations and
 * lines by section, found in constant time.
 */
import { type LineAt, readLines } from "./btf.ts";
import {
  ELF,
  type ElfFile,
  type ElfRelocation,
  type ElfSection,
  type ElfSymbol,
  elfError,
} from "./elf.ts";
import { SLOT } from "./instruction.ts";

/** A function: slots [start, end) of its section. */
export interface FunctionRange {
  readonly name: string;
  readonly section: ElfSection;
  readonly start: number;
  readonly end: number;
  readonly global: boolean;
}

export function isCode(section: ElfSection): boolean {
  return (
    section.type === ELF.SHT_PROGBITS &&
    (section.flags & ELF.SHF_EXECINSTR) !== 0 &&
    section.content.length > 0
  );
}

export class ElfIndex {
  readonly file: ElfFile;
  readonly #symbols = new Map<number, ElfSymbol[]>();
  readonly #lines: ReadonlyMap<string, readonly LineAt[]>;
  readonly #functions = new Map<ElfSection, ReadonlyMap<number, FunctionRange>>();
  readonly #relocations = new Map<ElfSection, ReadonlyMap<number, ElfRelocation>>();
  readonly #relocationTables = new Map<number, ElfSection[]>();

  constructor(file: ElfFile) {
    this.file = file;
    for (const symbol of file.symbols) {
      if (symbol.type === ELF.STT_FUNC) append(this.#symbols, symbol.section, symbol);
    }
    for (const section of file.sections) {
      const relocates = section.type === ELF.SHT_REL || section.type === ELF.SHT_RELA;
      if (relocates) append(this.#relocationTables, section.info, section);
    }
    const btf = file.section(".BTF");
    const ext = file.section(".BTF.ext");
    this.#lines = btf === undefined || ext === undefined ? new Map() : readLines(btf, ext);
  }

  /** Functions by their start, in order; the whole section if no symbol names one. */
  functionsOf(section: ElfSection): ReadonlyMap<number, FunctionRange> {
    const functions = this.#functions.get(section) ?? this.#readFunctions(section);
    this.#functions.set(section, functions);
    return functions;
  }

  /** Relocations by the slot that they change. */
  relocationsOf(section: ElfSection): ReadonlyMap<number, ElfRelocation> {
    const known = this.#relocations.get(section);
    if (known !== undefined) return known;
    const tables = this.#relocationTables.get(section.index) ?? [];
    const entries = tables.flatMap((table) => this.file.relocationsIn(table));
    const bySlot = new Map(
      // R_BPF_NONE has no effect.
      entries.filter((r) => r.type !== 0).map((r) => [Math.floor(r.offset / SLOT), r]),
    );
    this.#relocations.set(section, bySlot);
    return bySlot;
  }

  /** Lines of a function, in order. */
  linesOf({ section, start, end }: FunctionRange): readonly LineAt[] {
    const lines = this.#lines.get(section.name) ?? [];
    return lines.slice(lowerBound(lines, start), lowerBound(lines, end));
  }

  #readFunctions(section: ElfSection): ReadonlyMap<number, FunctionRange> {
    const slots = section.content.length / SLOT;
    if (!Number.isInteger(slots)) {
      throw elfError(`${section.name}: ${section.content.length} bytes are not whole instructions`);
    }
    const ranges = (this.#symbols.get(section.index) ?? []).map((s) => rangeOf(s, section, slots));
    if (ranges.length === 0) {
      ranges.push({ name: section.name, section, start: 0, end: slots, global: true });
    }
    return new Map(ranges.sort((a, b) => a.start - b.start).map((f) => [f.start, f]));
  }
}

function rangeOf(symbol: ElfSymbol, section: ElfSection, slots: number): FunctionRange {
  const { name } = symbol;
  const start = symbol.value / SLOT;
  const end = start + symbol.size / SLOT;
  if (!Number.isInteger(start) || !Number.isInteger(end) || start >= end || end > slots) {
    throw elfError(
      `${section.name}: function ${name} is not a range of whole instructions of the section`,
    );
  }
  return { name, section, start, end, global: symbol.binding !== ELF.STB_LOCAL };
}

function append<K, V>(map: Map<K, V[]>, key: K, value: V): void {
  const list = map.get(key);
  if (list === undefined) map.set(key, [value]);
  else list.push(value);
}

/** Returns the index of the first line at or after `slot`. */
function lowerBound(lines: readonly LineAt[], slot: number): number {
  let low = 0;
  let high = lines.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (lines[middle]!.slot < slot) low = middle + 1;
    else high = middle;
  }
  return low;
}

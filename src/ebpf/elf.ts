/**
 * The ELF container as BPF objects use it: ELF64, little endian, relocatable, machine EM_BPF.
 * Everything read is checked against the file's size, and sections do not overlap: the file's size
 * bounds work and memory.
 */
import { EbpfError } from "./errors.ts";

/** ELF-64 Object File Format. The machine number is registered as "Linux BPF". */
export const ELF = {
  HEADER_SIZE: 64,
  SECTION_HEADER_SIZE: 64,
  SYMBOL_SIZE: 24,
  RELOCATION_SIZE: 16,
  ET_REL: 1,
  EM_BPF: 247,
  SHT_PROGBITS: 1,
  SHT_SYMTAB: 2,
  SHT_STRTAB: 3,
  SHT_RELA: 4,
  SHT_NOBITS: 8,
  SHT_REL: 9,
  SHF_ALLOC: 0x2,
  SHF_EXECINSTR: 0x4,
  STB_LOCAL: 0,
  STB_GLOBAL: 1,
  STT_FUNC: 2,
  STT_SECTION: 3,
} as const;

/** 0x7f "ELF", 64 bit, little endian, version 1. */
export const ELF_IDENT: readonly number[] = [0x7f, 0x45, 0x4c, 0x46, 2, 1, 1];

/** Larger files are refused before they are parsed. */
const MAX_OBJECT_SIZE = 16 * 1024 * 1024;
/** Longer names are truncated. */
const MAX_STRING = 512;

export interface ElfSection {
  readonly index: number;
  readonly name: string;
  readonly type: number;
  readonly flags: number;
  /** A view of the file; empty for sections without content. */
  readonly content: Uint8Array;
  readonly link: number;
  readonly info: number;
}

export interface ElfSymbol {
  readonly name: string;
  readonly type: number;
  readonly binding: number;
  /** Index of its section; 0 if it is undefined. */
  readonly section: number;
  readonly value: number;
  readonly size: number;
}

export interface ElfRelocation {
  /** Byte offset of the change in the section. */
  readonly offset: number;
  readonly type: number;
  readonly symbol: number;
}

export function elfError(message: string): EbpfError {
  return new EbpfError("ELF", message);
}

/** Returns a view of all of `bytes`. */
export function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/**
 * Returns the string at `offset` of a string table, at most 512 bytes, without control characters,
 * so that it can be printed.
 * @throws EbpfError ELF
 */
export function stringAt(table: Uint8Array, offset: number): string {
  if (offset >= table.length) throw elfError(`string ${offset} is outside its table`);
  const window = table.subarray(offset, offset + MAX_STRING);
  const end = window.indexOf(0);
  const text = Buffer.from(end < 0 ? window : window.subarray(0, end)).toString("utf8");
  return text.replace(/\p{Cc}+/gu, " ");
}

/**
 * Reads the strings of a table, each once. Their total length is limited to that of a file: entries
 * that overlap would take hundreds of times the table's size.
 * @throws EbpfError ELF
 */
export function stringsOf(table: Uint8Array): (offset: number) => string {
  const known = new Map<number, string>();
  let total = 0;
  return (offset) => {
    let text = known.get(offset);
    if (text === undefined) {
      text = stringAt(table, offset);
      total += text.length;
      if (total > MAX_OBJECT_SIZE) throw elfError("the strings of a table overlap");
      known.set(offset, text);
    }
    return text;
  };
}

/** Reads a 64-bit size or offset, and refuses one that exceeds every accepted file. */
function size64(view: DataView, at: number, what: string): number {
  const value = view.getBigUint64(at, true);
  if (value > BigInt(MAX_OBJECT_SIZE)) throw elfError(`${what} ${value} is outside the file`);
  return Number(value);
}

/** @throws EbpfError ELF if the bytes are not an object for BPF, or are corrupt */
export function parseElf(bytes: Uint8Array): ElfFile {
  if (bytes.length > MAX_OBJECT_SIZE)
    throw elfError(`objects have at most ${MAX_OBJECT_SIZE} bytes`);
  if (bytes.length < ELF.HEADER_SIZE || ELF_IDENT.slice(0, 4).some((b, i) => bytes[i] !== b)) {
    throw elfError("not an ELF file");
  }
  if (ELF_IDENT.some((b, i) => bytes[i] !== b)) {
    throw elfError("not ELF64, little endian: compile with clang -target bpfel");
  }
  const view = viewOf(bytes);
  const machine = view.getUint16(18, true);
  if (machine !== ELF.EM_BPF) {
    throw elfError(
      `the object is for machine ${machine}, not BPF (247): compile with clang -target bpf`,
    );
  }
  if (view.getUint16(16, true) !== ELF.ET_REL) throw elfError("not a relocatable object");
  return new ElfFile(readSections(bytes, view));
}

function readSections(bytes: Uint8Array, view: DataView): ElfSection[] {
  const table = size64(view, 40, "the section table at");
  const count = view.getUint16(60, true);
  if (count === 0) throw elfError("there are no sections");
  if (view.getUint16(58, true) !== ELF.SECTION_HEADER_SIZE) {
    throw elfError("section headers do not have 64 bytes");
  }
  if (table + count * ELF.SECTION_HEADER_SIZE > bytes.length) {
    throw elfError("the section table reaches outside the file");
  }
  const headers = Array.from({ length: count }, (_, i) =>
    readHeader(bytes, view, table + i * ELF.SECTION_HEADER_SIZE, i),
  );
  const total = headers.reduce((sum, h) => sum + h.content.length, 0);
  // Each byte belongs to one section, so that a small file cannot cause much work.
  if (total > bytes.length) throw elfError("sections overlap");
  const names = headers[view.getUint16(62, true)];
  if (names?.type !== ELF.SHT_STRTAB) throw elfError("there is no table of section names");
  const strings = stringsOf(names.content);
  return headers.map(({ nameAt, ...header }) => ({
    ...header,
    name: header.type === 0 ? "" : strings(nameAt),
  }));
}

function readHeader(bytes: Uint8Array, view: DataView, at: number, index: number) {
  const type = view.getUint32(at + 4, true);
  const empty = type === 0 || type === ELF.SHT_NOBITS;
  const offset = empty ? 0 : size64(view, at + 24, `section ${index} at`);
  const size = empty ? 0 : size64(view, at + 32, `section ${index} of size`);
  if (offset + size > bytes.length) throw elfError(`section ${index} reaches outside the file`);
  return {
    index,
    nameAt: view.getUint32(at, true),
    type,
    flags: view.getUint32(at + 8, true),
    content: bytes.subarray(offset, offset + size),
    link: view.getUint32(at + 40, true),
    info: view.getUint32(at + 44, true),
  };
}

export class ElfFile {
  readonly sections: readonly ElfSection[];
  readonly symbols: readonly ElfSymbol[];

  constructor(sections: readonly ElfSection[]) {
    this.sections = sections;
    const table = sections.find((s) => s.type === ELF.SHT_SYMTAB);
    this.symbols = table === undefined ? [] : this.#readSymbols(table);
  }

  /** Returns the first section of that name. */
  section(name: string): ElfSection | undefined {
    return this.sections.find((s) => s.name === name);
  }

  #readSymbols(table: ElfSection): ElfSymbol[] {
    const names = this.sections[table.link];
    if (names?.type !== ELF.SHT_STRTAB) throw elfError("there is no table of symbol names");
    const view = viewOf(table.content);
    const nameAt = stringsOf(names.content);
    return Array.from({ length: whole(table, ELF.SYMBOL_SIZE) }, (_, i) => {
      const at = i * ELF.SYMBOL_SIZE;
      const info = view.getUint8(at + 4);
      return {
        name: nameAt(view.getUint32(at, true)),
        type: info & 15,
        binding: info >> 4,
        section: view.getUint16(at + 6, true),
        value: size64(view, at + 8, `symbol ${i} at`),
        size: size64(view, at + 16, `symbol ${i} of size`),
      };
    });
  }

  /**
   * Returns the entries of a relocation table. @throws EbpfError ELF for
   * those with addends, which BPF does not use
   */
  relocationsIn(table: ElfSection): ElfRelocation[] {
    if (table.type === ELF.SHT_RELA) throw elfError(`${table.name}: relocations with addends`);
    const view = viewOf(table.content);
    return Array.from({ length: whole(table, ELF.RELOCATION_SIZE) }, (_, i) => {
      const at = i * ELF.RELOCATION_SIZE;
      const symbol = view.getUint32(at + 12, true);
      if (symbol >= this.symbols.length) {
        throw elfError(`${table.name}: entry ${i} names symbol ${symbol}, which does not exist`);
      }
      return {
        offset: size64(view, at, `${table.name}: entry ${i} at`),
        type: view.getUint32(at + 8, true),
        symbol,
      };
    });
  }
}

/** Returns the number of entries of a table. */
function whole(table: ElfSection, size: number): number {
  if (table.content.length % size !== 0) throw elfError(`${table.name} ends within an entry`);
  return table.content.length / size;
}

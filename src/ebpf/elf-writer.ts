/**
 * Program sets as ELF objects: ELF64, little endian, relocatable, machine EM_BPF, one PROGBITS section per
 * program named after it, no relocations, and a symbol of the same name. `llvm-objdump -d` reads them,
 * and so do loaders that look for sections by name.
 *
 *     header | code of each program | .symtab | .strtab | .shstrtab | section headers
 */
import { EbpfError } from "./errors.ts";
import { SLOT } from "./instruction.ts";

/** ELF-64 Object File Format; the machine number is registered as "Linux BPF". */
const HEADER_SIZE = 64;
const SECTION_HEADER_SIZE = 64;
const SYMBOL_SIZE = 24;
const ET_REL = 1;
const EM_BPF = 247;
const SHT_PROGBITS = 1;
const SHT_SYMTAB = 2;
const SHT_STRTAB = 3;
const SHF_ALLOC_EXECINSTR = 0x6;
/** STB_GLOBAL << 4 | STT_FUNC */
const GLOBAL_FUNCTION = 0x12;

export interface ElfProgram {
  /** Section and symbol. */
  readonly name: string;
  readonly code: Uint8Array;
}

interface Section {
  readonly name: string;
  readonly type: number;
  readonly flags?: number;
  readonly content: Uint8Array;
  readonly align: number;
  readonly link?: number;
  readonly info?: number;
  readonly entrySize?: number;
}

/** Strings, each with its offset; offset 0 is the empty one. */
class StringTable {
  #text = "\0";
  add(text: string): number {
    const at = Buffer.byteLength(this.#text);
    this.#text += `${text}\0`;
    return at;
  }
  get bytes(): Uint8Array {
    return Buffer.from(this.#text);
  }
}

/** @throws EbpfError ELF for a name used twice, an empty name, or code that is not whole instructions */
export function writeElf(programs: readonly ElfProgram[]): Uint8Array {
  check(programs);
  const strings = new StringTable();
  const symbols = new Uint8Array((programs.length + 1) * SYMBOL_SIZE);
  const view = new DataView(symbols.buffer);
  for (const [i, { name, code }] of programs.entries()) {
    const at = (i + 1) * SYMBOL_SIZE;
    view.setUint32(at, strings.add(name), true);
    view.setUint8(at + 4, GLOBAL_FUNCTION);
    view.setUint16(at + 6, i + 1, true);
    view.setUint32(at + 16, code.length, true);
  }
  const names = new StringTable();
  const sections: Section[] = programs.map(({ name, code }) => ({
    name,
    type: SHT_PROGBITS,
    flags: SHF_ALLOC_EXECINSTR,
    content: code,
    align: SLOT,
  }));
  sections.push({
    name: ".symtab",
    type: SHT_SYMTAB,
    content: symbols,
    align: 8,
    link: programs.length + 2,
    // Index of the first symbol that is not local: the null one is.
    info: 1,
    entrySize: SYMBOL_SIZE,
  });
  sections.push({ name: ".strtab", type: SHT_STRTAB, content: strings.bytes, align: 1 });
  const nameOffsets = [...sections.map((s) => names.add(s.name)), names.add(".shstrtab")];
  sections.push({ name: ".shstrtab", type: SHT_STRTAB, content: names.bytes, align: 1 });
  return layOut(sections, nameOffsets);
}

function check(programs: readonly ElfProgram[]): void {
  const seen = new Set<string>();
  for (const { name, code } of programs) {
    if (name === "" || name.includes("\0")) throw new EbpfError("ELF", "a program without a name");
    if (seen.has(name)) throw new EbpfError("ELF", `two programs are called ${name}`);
    if (code.length === 0 || code.length % SLOT !== 0) {
      throw new EbpfError("ELF", `${name}: ${code.length} bytes are not whole instructions`);
    }
    seen.add(name);
  }
}

function layOut(sections: readonly Section[], nameOffsets: readonly number[]): Uint8Array {
  let end = HEADER_SIZE;
  const offsets = sections.map(({ content, align }) => {
    const at = Math.ceil(end / align) * align;
    end = at + content.length;
    return at;
  });
  const table = Math.ceil(end / 8) * 8;
  const bytes = new Uint8Array(table + (sections.length + 1) * SECTION_HEADER_SIZE);
  writeHeader(bytes, table, sections.length + 1);
  for (const [i, section] of sections.entries()) {
    bytes.set(section.content, offsets[i]);
    const at = table + (i + 1) * SECTION_HEADER_SIZE;
    const header = new DataView(bytes.buffer, at, SECTION_HEADER_SIZE);
    header.setUint32(0, nameOffsets[i]!, true);
    header.setUint32(4, section.type, true);
    header.setUint32(8, section.flags ?? 0, true);
    header.setUint32(24, offsets[i]!, true);
    header.setUint32(32, section.content.length, true);
    header.setUint32(40, section.link ?? 0, true);
    header.setUint32(44, section.info ?? 0, true);
    header.setUint32(48, section.align, true);
    header.setUint32(56, section.entrySize ?? 0, true);
  }
  return bytes;
}

function writeHeader(bytes: Uint8Array, sectionTable: number, sections: number): void {
  // 0x7f "ELF", 64 bit, little endian, version 1
  bytes.set([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1]);
  const header = new DataView(bytes.buffer);
  header.setUint16(16, ET_REL, true);
  header.setUint16(18, EM_BPF, true);
  header.setUint32(20, 1, true);
  header.setUint32(40, sectionTable, true);
  header.setUint16(52, HEADER_SIZE, true);
  header.setUint16(58, SECTION_HEADER_SIZE, true);
  header.setUint16(60, sections, true);
  header.setUint16(62, sections - 1, true);
}

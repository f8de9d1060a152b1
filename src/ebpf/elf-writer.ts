/**
 * Writes program sets as ELF objects: ELF64, little endian, relocatable, machine
 * ELF.EM_BPF, one PROGBITS section per program named after it, no relocations, and a symbol
 * of the same name. `llvm-objdump -d` and loaders that look for sections by name read them.
 * Source lines, if known, are written as BTF.
 *
 *     header | program code | .BTF | .BTF.ext | .symtab | .strtab | .shstrtab | section headers
 */
import { StringTable, writeLines } from "./btf.ts";
import { ELF, ELF_IDENT, elfError } from "./elf.ts";
import { SLOT } from "./instruction.ts";
import type { Program } from "./program.ts";

const GLOBAL_FUNCTION = (ELF.STB_GLOBAL << 4) | ELF.STT_FUNC;
/** Least alignment that readers of BTF need. */
const BTF_ALIGN = 4;

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

/** @throws EbpfError ELF for a duplicate or empty name, or code that is not whole instructions */
export function writeElf(programs: readonly Program[]): Uint8Array {
  check(programs);
  const strings = new StringTable();
  const symbols = new Uint8Array((programs.length + 1) * ELF.SYMBOL_SIZE);
  const view = new DataView(symbols.buffer);
  for (const [i, { name, code }] of programs.entries()) {
    const at = (i + 1) * ELF.SYMBOL_SIZE;
    view.setUint32(at, strings.add(name), true);
    view.setUint8(at + 4, GLOBAL_FUNCTION);
    view.setUint16(at + 6, i + 1, true);
    view.setUint32(at + 16, code.length, true);
  }
  const names = new StringTable();
  const sections: Section[] = programs.map(({ name, code }) => ({
    name,
    type: ELF.SHT_PROGBITS,
    flags: ELF.SHF_ALLOC | ELF.SHF_EXECINSTR,
    content: code,
    align: SLOT,
  }));
  if (programs.some(({ lines }) => (lines?.size ?? 0) > 0)) {
    const { btf, ext } = writeLines(programs);
    sections.push({ name: ".BTF", type: ELF.SHT_PROGBITS, content: btf, align: BTF_ALIGN });
    sections.push({ name: ".BTF.ext", type: ELF.SHT_PROGBITS, content: ext, align: BTF_ALIGN });
  }
  sections.push({
    name: ".symtab",
    type: ELF.SHT_SYMTAB,
    content: symbols,
    align: 8,
    link: sections.length + 2,
    // Index of the first symbol that is not local: the null symbol is local.
    info: 1,
    entrySize: ELF.SYMBOL_SIZE,
  });
  sections.push({ name: ".strtab", type: ELF.SHT_STRTAB, content: strings.bytes, align: 1 });
  const nameOffsets = [...sections.map((s) => names.add(s.name)), names.add(".shstrtab")];
  sections.push({ name: ".shstrtab", type: ELF.SHT_STRTAB, content: names.bytes, align: 1 });
  return layOut(sections, nameOffsets);
}

function check(programs: readonly Program[]): void {
  const seen = new Set<string>();
  for (const { name, code } of programs) {
    if (name === "" || name.includes("\0")) throw elfError("a program without a name");
    if (seen.has(name)) throw elfError(`two programs are called ${name}`);
    if (code.length === 0 || code.length % SLOT !== 0) {
      throw elfError(`${name}: ${code.length} bytes are not whole instructions`);
    }
    seen.add(name);
  }
}

function layOut(sections: readonly Section[], nameOffsets: readonly number[]): Uint8Array {
  let end = ELF.HEADER_SIZE;
  const offsets = sections.map(({ content, align }) => {
    const at = Math.ceil(end / align) * align;
    end = at + content.length;
    return at;
  });
  const table = Math.ceil(end / 8) * 8;
  const bytes = new Uint8Array(table + (sections.length + 1) * ELF.SECTION_HEADER_SIZE);
  writeHeader(bytes, table, sections.length + 1);
  for (const [i, section] of sections.entries()) {
    bytes.set(section.content, offsets[i]);
    const at = table + (i + 1) * ELF.SECTION_HEADER_SIZE;
    const header = new DataView(bytes.buffer, at, ELF.SECTION_HEADER_SIZE);
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
  bytes.set(ELF_IDENT);
  const header = new DataView(bytes.buffer);
  header.setUint16(16, ELF.ET_REL, true);
  header.setUint16(18, ELF.EM_BPF, true);
  header.setUint32(20, 1, true);
  header.setUint32(40, sectionTable, true);
  header.setUint16(52, ELF.HEADER_SIZE, true);
  header.setUint16(58, ELF.SECTION_HEADER_SIZE, true);
  header.setUint16(60, sections, true);
  header.setUint16(62, sections - 1, true);
}

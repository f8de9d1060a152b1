/**
 * Program sets as the protocol hands them over: an ELF object in a descriptor, read from byte 0, with one section per
 * program, named after it. The reader follows the rules of the original QEMU fork's loader: sections of other names
 * are ignored, of two with the same name the first wins.
 */
import { fstatSync, readSync } from "node:fs";
import {
  MAX_INSTRUCTIONS,
  PROGRAM_IDS,
  PROGRAM_NAMES,
  type ProgramId,
  type ProgramName,
  type ProgramSet,
  programSetProblem,
} from "../../abi/index.ts";
import { writeElf } from "../../ebpf/elf-writer.ts";
import { createFileMemfd } from "../../os/memory.ts";

/** Ten programs of the longest kind, and as much again for symbols and debug information. */
const MAX_OBJECT = 2 * 10 * 8 * MAX_INSTRUCTIONS;
const SECTION_HEADER = 64;
const SHT_PROGBITS = 1;
/** 0x7f "ELF", 64 bit, little endian. */
const MAGIC = [0x7f, 0x45, 0x4c, 0x46, 2, 1];

/** @returns a descriptor of an object in memory; `setOf` says which set holds the program of a name */
export function writeProgramObject(setOf: (name: ProgramName) => ProgramSet): number {
  const programs = PROGRAM_NAMES.flatMap((name) => {
    const code = setOf(name).code.get(PROGRAM_IDS[name]);
    return code === undefined ? [] : [{ name, code }];
  });
  return createFileMemfd("bpfhv-programs", writeElf(programs));
}

/** The object is not one, or its set is not whole. */
export class ProgramObjectError extends Error {
  readonly code = "PROGRAMS";
  constructor(message: string) {
    super(`program object: ${message}`);
    this.name = "ProgramObjectError";
  }
}

/** @throws ProgramObjectError */
export function readProgramObject(fd: number): ProgramSet {
  const code = sectionsOf(readAll(fd));
  const set: ProgramSet = { form: "v1", code };
  const problem = programSetProblem(set);
  if (problem !== null) throw new ProgramObjectError(problem);
  return set;
}

function readAll(fd: number): Uint8Array {
  const stat = fstatSync(fd);
  if (!stat.isFile()) throw new ProgramObjectError("the descriptor is not a file");
  if (stat.size > MAX_OBJECT) throw new ProgramObjectError(`${stat.size} bytes are too many`);
  const bytes = new Uint8Array(stat.size);
  let at = 0;
  while (at < bytes.length) {
    const n = readSync(fd, bytes, at, bytes.length - at, at);
    if (n === 0) break;
    at += n;
  }
  return bytes.subarray(0, at);
}

/** A checked slice. @throws ProgramObjectError */
function slice(bytes: Uint8Array, at: number, length: number, what: string): Uint8Array {
  const inside = at >= 0 && length >= 0 && length <= bytes.length - at;
  if (!inside) throw new ProgramObjectError(`${what} lies outside of the file`);
  return bytes.subarray(at, at + length);
}

interface Section {
  readonly name: number;
  readonly type: number;
  readonly offset: number;
  readonly size: number;
}

function sectionsOf(bytes: Uint8Array): Map<ProgramId, Uint8Array> {
  const header = slice(bytes, 0, 64, "its header");
  if (MAGIC.some((byte, i) => header[i] !== byte)) {
    throw new ProgramObjectError("not a 64-bit little-endian ELF file");
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  if (view.getUint16(58, true) !== SECTION_HEADER)
    throw new ProgramObjectError("odd section headers");
  const count = view.getUint16(60, true);
  const table = slice(bytes, at64(view, 40), count * SECTION_HEADER, "the section table");
  const sections = Array.from({ length: count }, (_, i) => sectionAt(table, i * SECTION_HEADER));
  const strings = sections[view.getUint16(62, true)];
  if (strings === undefined) throw new ProgramObjectError("it has no section names");
  const names = slice(bytes, strings.offset, strings.size, "the table of names");
  const code = new Map<ProgramId, Uint8Array>();
  for (const section of sections.slice(1)) {
    const name = PROGRAM_NAMES.find((known) => isNamed(names, section.name, known));
    if (name === undefined || section.type !== SHT_PROGBITS || section.size === 0) continue;
    const id = PROGRAM_IDS[name];
    if (!code.has(id)) code.set(id, slice(bytes, section.offset, section.size, `program ${name}`));
  }
  return code;
}

function at64(view: DataView, at: number): number {
  return view.getUint32(at + 4, true) * 2 ** 32 + view.getUint32(at, true);
}

function sectionAt(table: Uint8Array, at: number): Section {
  const view = new DataView(table.buffer, table.byteOffset + at, SECTION_HEADER);
  return {
    name: view.getUint32(0, true),
    type: view.getUint32(4, true),
    offset: at64(view, 24),
    size: at64(view, 32),
  };
}

function isNamed(names: Uint8Array, at: number, name: string): boolean {
  const bytes = names.subarray(at, at + name.length + 1);
  return bytes.length === name.length + 1 && Buffer.from(bytes).equals(Buffer.from(`${name}\0`));
}

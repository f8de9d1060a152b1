/**
 * Program sets as the protocol hands them over: an ELF object in a descriptor, read from byte 0,
 * with one section per program, named after it. The reader follows the rules of the original QEMU
 * fork's loader: sections of other names are ignored, of two with the same name the first wins.
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
import { ELF, type ElfSection, parseElf } from "../../ebpf/elf.ts";
import { writeElf } from "../../ebpf/elf-writer.ts";
import { EbpfError } from "../../ebpf/errors.ts";
import { createFileMemfd } from "../../os/memory.ts";

/** Ten programs of the longest kind, and as much again for symbols and debug information. */
const MAX_OBJECT = 2 * 10 * 8 * MAX_INSTRUCTIONS;

/**
 * @returns a descriptor of an object in memory; `setOf` says which set holds the program of a name
 */
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
  const set: ProgramSet = { form: "v1", code: programsOf(readAll(fd)) };
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

/** Code of the known sections. @throws ProgramObjectError */
function programsOf(bytes: Uint8Array): Map<ProgramId, Uint8Array> {
  const code = new Map<ProgramId, Uint8Array>();
  for (const { name, type, content } of sectionsOf(bytes)) {
    const known = PROGRAM_NAMES.find((program) => program === name);
    if (known === undefined || type !== ELF.SHT_PROGBITS || content.length === 0) continue;
    if (!code.has(PROGRAM_IDS[known])) code.set(PROGRAM_IDS[known], content);
  }
  return code;
}

function sectionsOf(bytes: Uint8Array): readonly ElfSection[] {
  try {
    return parseElf(bytes).sections;
  } catch (error) {
    if (error instanceof EbpfError) throw new ProgramObjectError(error.message);
    throw error;
  }
}

/**
 * Reads programs from objects of clang: each function of a section is one, and the functions that
 * it calls, wherever they are, are appended to it and their calls resolved. Relocations that need a
 * loader (maps, global data, functions of the kernel) are refused by name.
 */
import { MAX_INSTRUCTIONS, MAX_PROGRAM_ID } from "../abi/programs.ts";
import { ELF, type ElfRelocation, type ElfSection, elfError, parseElf } from "./elf.ts";
import { ElfIndex, type FunctionRange, isCode } from "./elf-index.ts";
import { EbpfError } from "./errors.ts";
import {
  decodeProgram,
  encodeProgram,
  type Instruction,
  SLOT,
  slotsOf,
  targetOf,
} from "./instruction.ts";
import type { Program, SourceLine } from "./program.ts";

/** A program of an object, and its origin. */
export interface ElfProgram extends Program {
  readonly section: string;
  /** Its function; the section's name if there are no symbols. */
  readonly entry: string;
}

/**
 * Limit of slots of all programs of an object: those of the largest set. A
 * function counts for each of its callers.
 */
const MAX_SLOTS = MAX_PROGRAM_ID * MAX_INSTRUCTIONS;

const R_BPF_64_64 = 1;
const R_BPF_64_32 = 10;
/** Relocation types of BPF (LLVM, BPF.def). */
const RELOCATIONS: Readonly<Record<number, string>> = {
  ...{ [R_BPF_64_64]: "R_BPF_64_64", 2: "R_BPF_64_ABS64", 3: "R_BPF_64_ABS32" },
  ...{ 4: "R_BPF_64_NODYLD32", [R_BPF_64_32]: "R_BPF_64_32" },
};

/**
 * Reads the programs of an object. A section with one entry makes a program of the section's name,
 * one with several makes programs of the functions' names. `.text` holds entries only if no other
 * section has code. The first of several sections with one name counts.
 * @param only reads this section alone, or if there is none of that name, this function
 * @throws EbpfError ELF if the file is corrupt or needs a loader, ENCODING if code is invalid
 */
export function readElf(bytes: Uint8Array, only?: string): ElfProgram[] {
  return readEach(bytes, only, false, (error) => {
    throw error;
  });
}

/**
 * Reads an object for display: a relocation that needs a loader becomes a reference by name, and an
 * invalid program does not prevent reading the others.
 * @param problem called with the error of a program
 */
export function readForeignElf(
  bytes: Uint8Array,
  only: string | undefined,
  problem: (error: EbpfError) => void,
): ElfProgram[] {
  return readEach(bytes, only, true, problem);
}

function readEach(
  bytes: Uint8Array,
  only: string | undefined,
  foreign: boolean,
  problem: (error: EbpfError) => void,
): ElfProgram[] {
  const index = new ElfIndex(parseElf(bytes));
  const budget = { slots: MAX_SLOTS };
  const programs: ElfProgram[] = [];
  for (const { name, entry } of chosenEntries(index, only)) {
    try {
      const linked = new Linker(index, name, budget, foreign).link(entry);
      programs.push({ name, section: entry.section.name, entry: entry.name, ...linked });
    } catch (error) {
      if (!(error instanceof EbpfError)) throw error;
      problem(error);
    }
  }
  return programs;
}

/** True if the bytes begin like an ELF file. */
export function looksLikeElf(bytes: Uint8Array): boolean {
  return [0x7f, 0x45, 0x4c, 0x46].every((byte, i) => bytes[i] === byte);
}

function entrySections(code: readonly ElfSection[]): ElfSection[] {
  const byName = new Map<string, ElfSection>();
  for (const section of code) {
    if (!byName.has(section.name)) byName.set(section.name, section);
  }
  if (byName.size > 1) byName.delete(".text");
  return [...byName.values()];
}

interface Entry {
  /** The program's name. */
  readonly name: string;
  readonly entry: FunctionRange;
}

/** @throws EbpfError ELF if there is no code, or none of that name */
function chosenEntries(index: ElfIndex, only: string | undefined): Entry[] {
  const code = index.file.sections.filter(isCode);
  if (code.length === 0) throw elfError("the object has no code");
  if (only === undefined) return entrySections(code).flatMap((s) => entriesOf(index, s));
  const section = code.find((s) => s.name === only);
  if (section !== undefined) return entriesOf(index, section);
  const entries = code.flatMap((s) => entriesOf(index, s));
  const named = entries.find(({ entry }) => entry.name === only);
  if (named !== undefined) return [named];
  const names = code.slice(0, 20).map((s) => s.name);
  throw elfError(
    `no section with code and no function is called "${only}": there is ${names.join(", ")}`,
  );
}

function entriesOf(index: ElfIndex, section: ElfSection): Entry[] {
  const functions = [...index.functionsOf(section).values()];
  const global = functions.filter((f) => f.global);
  const entries = global.length > 0 ? global : functions;
  const alone = entries.length === 1 && section.name !== ".text";
  return entries.map((entry) => ({ name: alone ? section.name : entry.name, entry }));
}

function isWithin({ start, end }: FunctionRange, slot: number): boolean {
  return slot >= start && slot < end;
}

/** Links one program. */
class Linker {
  readonly #index: ElfIndex;
  readonly #name: string;
  readonly #budget: { slots: number };
  /** Relocations that need a loader become references instead of errors. */
  readonly #foreign: boolean;
  readonly #references = new Map<number, string>();
  /** Functions in their order, each with its first slot in the program. */
  readonly #bases = new Map<FunctionRange, number>();
  #end = 0;

  constructor(index: ElfIndex, name: string, budget: { slots: number }, foreign: boolean) {
    this.#index = index;
    this.#name = name;
    this.#budget = budget;
    this.#foreign = foreign;
  }

  link(entry: FunctionRange): Pick<Program, "code" | "lines" | "references"> {
    this.#place(entry);
    const code: Instruction[] = [];
    const lines = new Map<number, SourceLine>();
    // The map grows during the iteration, by the functions that are called.
    for (const [f, base] of this.#bases) {
      for (const i of this.#decode(f)) code.push(this.#resolve(f, i, base + i.index));
      for (const { slot, source } of this.#index.linesOf(f)) {
        lines.set(base + slot - f.start, source);
      }
    }
    return {
      code: encodeProgram(code),
      ...(lines.size === 0 ? {} : { lines }),
      ...(this.#references.size === 0 ? {} : { references: this.#references }),
    };
  }

  #place(f: FunctionRange): number {
    const known = this.#bases.get(f);
    if (known !== undefined) return known;
    const base = this.#end;
    const length = f.end - f.start;
    this.#budget.slots -= length;
    if (this.#budget.slots < 0)
      throw this.#refusal(`the object's programs have more than ${MAX_SLOTS} slots`);
    this.#bases.set(f, base);
    this.#end += length;
    return base;
  }

  #decode(f: FunctionRange): Instruction[] {
    let list: Instruction[];
    try {
      list = decodeProgram(f.section.content.subarray(f.start * SLOT, f.end * SLOT));
    } catch (error) {
      if (!(error instanceof EbpfError)) throw error;
      throw new EbpfError(error.code, `${this.#name}, function ${f.name}: ${error.message}`);
    }
    for (const i of list) {
      const target = i.encoding.operation.kind === "call" ? undefined : targetOf(i);
      if (target !== undefined && !isWithin(f, f.start + target)) {
        throw this.#refusal(`instruction ${i.index} of ${f.name} jumps out of its function`);
      }
    }
    return list;
  }

  /**
   * Returns the instruction at its place in the program, with a
   * local call's distance to its function.
   */
  #resolve(f: FunctionRange, i: Instruction, index: number): Instruction {
    const { operation } = i.encoding;
    const slot = f.start + i.index;
    const relocations = this.#index.relocationsOf(f.section);
    const second = slotsOf(i) === 2 ? relocations.get(slot + 1) : undefined;
    const relocation = relocations.get(slot) ?? second;
    const local = operation.kind === "call" && operation.target === "local";
    const here = local && relocation?.type === R_BPF_64_32 && this.#isHere(relocation);
    if (relocation !== undefined && this.#foreign && !here) {
      this.#references.set(index, this.#nameOf(relocation, i, local));
      return { ...i, index };
    }
    if (relocation !== undefined && !(local && relocation.type === R_BPF_64_32)) {
      throw this.#unresolved(relocation, f, slot);
    }
    // A call within the function's own code is unchanged, as in linked programs.
    const within = relocation === undefined && isWithin(f, slot + i.imm + 1);
    if (!local || within) return { ...i, index };
    return { ...i, index, imm: this.#place(this.#callee(f, i, relocation)) - index - 1 };
  }

  /**
   * Returns the function that a local call leads to. Without a relocation `imm` counts from the
   * next instruction, with one from the symbol, less 1.
   */
  #callee(f: FunctionRange, i: Instruction, relocation: ElfRelocation | undefined): FunctionRange {
    const slot = f.start + i.index;
    const { sections, symbols } = this.#index.file;
    const symbol = relocation === undefined ? undefined : symbols[relocation.symbol]!;
    const section = symbol === undefined ? f.section : sections[symbol.section];
    const from = symbol === undefined ? slot : symbol.value / SLOT;
    if (section === undefined || !isCode(section)) {
      throw this.#unresolved(relocation!, f, slot);
    }
    const target = from + i.imm + 1;
    const callee = this.#index.functionsOf(section).get(target);
    if (callee !== undefined) return callee;
    const where = `slot ${target} of ${section.name}, where no function begins`;
    throw this.#refusal(`instruction ${i.index} of ${f.name} calls ${where}`);
  }

  /** True if the object has the function that is called. */
  #isHere({ symbol }: ElfRelocation): boolean {
    const { sections, symbols } = this.#index.file;
    const section = sections[symbols[symbol]!.section];
    return section !== undefined && isCode(section);
  }

  /** Returns a loader's reference as text. `imm` is the addend to the symbol's address. */
  #nameOf({ symbol }: ElfRelocation, { imm }: Instruction, call: boolean): string {
    const { symbols, sections } = this.#index.file;
    const { name, section, type } = symbols[symbol]!;
    const home = sections[section]?.name ?? "";
    if (call) return `extern(${name})`;
    const shown = type === ELF.STT_SECTION || name === "" ? home : name;
    const kind = home === ".maps" || home === "maps" ? "map" : "address";
    return `${kind}(${shown}${imm === 0 ? "" : ` + ${imm}`})`;
  }

  #unresolved({ type, symbol }: ElfRelocation, f: FunctionRange, slot: number): EbpfError {
    const { symbols, sections } = this.#index.file;
    const { name, section, type: symbolType } = symbols[symbol]!;
    const what =
      symbolType === ELF.STT_SECTION || name === "" ? (sections[section]?.name ?? name) : name;
    const why =
      type === R_BPF_64_64
        ? "maps, globals and constants in memory need a loader; keep values on the stack"
        : "only calls of functions of this object are resolved; define it here, or inline it";
    const kind = RELOCATIONS[type] ?? `of type ${type}`;
    return this.#refusal(
      `relocation ${kind} against "${what}" at instruction ${slot - f.start} of ${f.name}: ${why}`,
    );
  }

  #refusal(message: string): EbpfError {
    return elfError(`${this.#name}: ${message}`);
  }
}

/** Errors of this folder. `code` is stable; the message names the program and the instruction. */

export type EbpfErrorCode =
  /** Bytes that are not a valid encoding. */
  | "ENCODING"
  /** Valid instructions that are not a valid program: jumps out of it, no exit, R10 written. */
  | "STRUCTURE"
  /** Invalid use of the assembler: unknown label, value out of range, syntax error. */
  | "ASSEMBLY"
  /** A load, store or atomic outside the regions of memory, or a misaligned atomic. */
  | "MEMORY"
  /** An unknown helper was called. */
  | "HELPER"
  /** Too many instructions executed, or calls nested too deeply. */
  | "LIMIT"
  /** Valid instructions that this runner does not support. */
  | "UNSUPPORTED"
  /** An object file that is invalid or unsupported. */
  | "ELF";

export class EbpfError extends Error {
  override readonly name = "EbpfError";
  readonly code: EbpfErrorCode;
  /** Slot of the instruction, counted in 8-byte units as in the kernel; -1 if there is none. */
  readonly index: number;

  constructor(code: EbpfErrorCode, message: string, index = -1) {
    super(index < 0 ? message : `instruction ${index}: ${message}`);
    this.code = code;
    this.index = index;
  }
}

/** ASSEMBLY, with the place in the text; both are 1-based. */
export class TextError extends EbpfError {
  readonly line: number;
  readonly column: number;

  constructor(message: string, line: number, column: number) {
    super("ASSEMBLY", `line ${line}, column ${column}: ${message}`);
    this.line = line;
    this.column = column;
  }
}

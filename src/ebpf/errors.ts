/** Errors of this room. `code` is stable; the message names the program and the instruction. */

export type EbpfErrorCode =
  /** Bytes that are not a valid encoding. */
  | "ENCODING"
  /** Valid instructions that do not make a program: jumps out of it, no exit, R10 written. */
  | "STRUCTURE"
  /** The assembler was used wrongly: unknown label, value out of range, text not understood. */
  | "ASSEMBLY"
  /** A load, store or atomic outside the regions of memory, or a misaligned atomic. */
  | "MEMORY"
  /** An unknown helper was called. */
  | "HELPER"
  /** Too many instructions executed, or calls nested too deeply. */
  | "LIMIT"
  /** Known instructions that this engine does not run. */
  | "UNSUPPORTED"
  /** Not an object file that we read. */
  | "ELF";

export class EbpfError extends Error {
  override readonly name = "EbpfError";
  readonly code: EbpfErrorCode;
  /** Slot of the instruction, counted in 8-byte units as the kernel does; -1 if there is none. */
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

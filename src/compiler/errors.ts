/** Errors of the compiler: always with a place, the offending text, and what to write instead. */
import type { SourceLine } from "../ebpf/program.ts";

export type CompileErrorCode =
  /** Not TypeScript. */
  | "SYNTAX"
  /** TypeScript that guest programs cannot use. */
  | "UNSUPPORTED"
  /** A free name that is no constant, layout, function or given value. */
  | "NAME"
  /** A file that is not there, does not export what is imported, or imports the one that imports it. */
  | "IMPORT"
  /** Widths or kinds of values that do not go together. */
  | "TYPE"
  /** A constant out of range, or needed where there is none. */
  | "CONSTANT"
  /** More than a program, its stack or its instructions can hold. */
  | "LIMIT";

export class CompileError extends Error {
  override readonly name = "CompileError";
  readonly code: CompileErrorCode;
  readonly place: SourceLine;
  /** What is wrong, without place and hint. */
  readonly reason: string;
  /** The text of the node at fault, shortened. */
  readonly offending: string;
  /** What to write instead. */
  readonly hint: string;

  constructor(
    code: CompileErrorCode,
    place: SourceLine,
    reason: string,
    offending: string,
    hint: string,
  ) {
    const shown = offending === "" ? "" : ` (at "${offending}")`;
    super(`${place.file}:${place.line}:${place.column}: ${reason}${shown}: ${hint}`);
    this.code = code;
    this.place = place;
    this.reason = reason;
    this.offending = offending;
    this.hint = hint;
  }
}

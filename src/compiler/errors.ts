/** Errors of the compiler, each with place, offending text and a hint. */
import type { SourceLine } from "../ebpf/program.ts";

export type CompileErrorCode =
  /** The text is invalid TypeScript. */
  | "SYNTAX"
  /** TypeScript that guest programs do not support. */
  | "UNSUPPORTED"
  /** A free name that is not a constant, layout, function or given value. */
  | "NAME"
  /** A file that does not exist, lacks the imported export, or is imported in a cycle. */
  | "IMPORT"
  /** Widths or types that do not match. */
  | "TYPE"
  /** A constant out of range, or a value that must be constant. */
  | "CONSTANT"
  /** A limit of programs, stack or instructions is exceeded. */
  | "LIMIT";

export class CompileError extends Error {
  override readonly name = "CompileError";
  readonly code: CompileErrorCode;
  readonly place: SourceLine;
  /** The error without place and hint. */
  readonly reason: string;
  /** The text of the offending node, shortened. */
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

/** Reasons of refusals: a stable rule, the place, the error, and a fix. */

export type Rule =
  /** Bytes that are not valid instructions, or instructions that are not a program. */
  | "STRUCTURE"
  | "SIZE"
  | "UNREACHABLE"
  /** Valid instructions that are unprovable, or that bpfhv programs do not need. */
  | "UNSUPPORTED"
  /** A shift by at least the width, or a division by zero, with a constant operand. */
  | "CONSTANT"
  | "UNINITIALISED_REGISTER"
  | "NOT_A_POINTER"
  | "POINTER_ARITHMETIC"
  | "POINTER_LEAK"
  | "CONTEXT_BOUNDS"
  | "STACK_BOUNDS"
  | "STACK_ALIGNMENT"
  | "STACK_UNINITIALISED"
  | "ATOMIC_ALIGNMENT"
  | "HELPER_UNKNOWN"
  | "HELPER_FORM"
  | "HELPER_PROGRAM"
  | "HELPER_UNPROVABLE"
  | "HELPER_ARGUMENT"
  | "RETURN_VALUE"
  | "ENDLESS_LOOP"
  | "TOO_COMPLEX"
  | "CALL_DEPTH"
  | "STACK_DEPTH";

/** Thrown within the verifier. `verify` converts it to its verdict. */
export class Refused extends Error {
  override readonly name = "Refused";
  readonly rule: Rule;
  /** Slot of the instruction; -1 for the program as a whole. */
  readonly index: number;
  readonly fix: string;

  constructor(rule: Rule, index: number, message: string, fix: string) {
    super(message);
    this.rule = rule;
    this.index = index;
    this.fix = fix;
  }
}

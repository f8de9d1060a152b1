/** Checks that a sequence of instructions is a program, without knowledge of values. */
import { EbpfError } from "./errors.ts";
import {
  decodeProgram,
  FRAME_POINTER,
  type Instruction,
  slotsOf,
  targetOf,
} from "./instruction.ts";

/** True if control never continues at the next instruction. */
export function endsFlow(instruction: Instruction): boolean {
  const { kind } = instruction.encoding.operation;
  return kind === "exit" || kind === "goto";
}

/** True if the instruction writes its `dst` register. */
export function writesDst(instruction: Instruction): boolean {
  switch (instruction.encoding.operation.kind) {
    case "alu":
    case "movsx":
    case "neg":
    case "swap":
    case "load":
    case "wide":
      return true;
    default:
      return false;
  }
}

/** True if an atomic operation writes the old value into its `src` register. */
export function fetchesIntoSrc(instruction: Instruction): boolean {
  const { operation } = instruction.encoding;
  return (
    operation.kind === "atomic" && (operation.op.startsWith("fetch") || operation.op === "xchg")
  );
}

/**
 * Checks that jumps and local calls lead to instructions of the program (not into the second half
 * of a wide load), that control does not run off its end, and that R10 is never written.
 * @throws EbpfError STRUCTURE
 */
export function checkStructure(instructions: readonly Instruction[]): void {
  const last = instructions.at(-1);
  if (last === undefined) throw new EbpfError("STRUCTURE", "the program is empty");
  const starts = new Set(instructions.map((i) => i.index));
  const end = last.index + slotsOf(last);
  for (const instruction of instructions) {
    checkTarget(instruction, starts, end);
    const written =
      (writesDst(instruction) && instruction.dst === FRAME_POINTER) ||
      (fetchesIntoSrc(instruction) && instruction.src === FRAME_POINTER);
    if (written) throw new EbpfError("STRUCTURE", "r10 is read-only", instruction.index);
  }
  if (!endsFlow(last)) {
    throw new EbpfError(
      "STRUCTURE",
      "control runs off the end: end the program with exit or goto",
      last.index,
    );
  }
}

function checkTarget(instruction: Instruction, starts: ReadonlySet<number>, end: number): void {
  const target = targetOf(instruction);
  if (target === undefined || starts.has(target)) return;
  const where =
    target < 0 || target >= end
      ? `outside the program (0..${end - 1})`
      : "the second half of a 64-bit load";
  throw new EbpfError("STRUCTURE", `jumps to ${target}: ${where}`, instruction.index);
}

/** Decodes and checks a program. */
export function loadProgram(code: Uint8Array): Instruction[] {
  const instructions = decodeProgram(code);
  checkStructure(instructions);
  return instructions;
}

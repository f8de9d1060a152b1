/** Stack use of a program and the functions that it calls, counted as verifiers do. */
import type { SourceLine } from "../../ebpf/program.ts";
import { CompileError } from "../errors.ts";
import type { MachineFunction } from "./code.ts";

export const STACK_BYTES = 512;
/** Nested functions, including the program's own (MAX_CALL_FRAMES of Linux). */
const MAX_FRAMES = 8;
/**
 * Frames are rounded up to this. An empty one counts as well
 * (check_max_stack_depth, Linux before 6.8).
 */
const FRAME_UNIT = 32;

interface Chain {
  /** Nested functions, the outermost first. */
  readonly names: readonly string[];
  readonly bytes: number;
}

/** @throws CompileError LIMIT if nested functions exceed the stack or the number of frames */
export function checkStack(functions: readonly MachineFunction[], place: () => SourceLine): void {
  const known = new Map<number, { longest: Chain; deepest: Chain }>();
  const measure = (index: number): { longest: Chain; deepest: Chain } => {
    const before = known.get(index);
    if (before !== undefined) return before;
    const { name, stack, blocks } = functions[index]!;
    const bytes = Math.max(FRAME_UNIT, Math.ceil(stack / FRAME_UNIT) * FRAME_UNIT);
    let longest: Chain = { names: [], bytes: 0 };
    let deepest = longest;
    for (const callee of new Set(blocks.flatMap((b) => b.code.flatMap((i) => i.callee ?? [])))) {
      const inner = measure(callee);
      if (inner.longest.names.length > longest.names.length) longest = inner.longest;
      if (inner.deepest.bytes > deepest.bytes) deepest = inner.deepest;
    }
    const around = (c: Chain): Chain => ({ names: [name, ...c.names], bytes: bytes + c.bytes });
    const measured = { longest: around(longest), deepest: around(deepest) };
    known.set(index, measured);
    return measured;
  };
  if (functions.length === 1) return;
  const { longest, deepest } = measure(0);
  if (longest.names.length > MAX_FRAMES) {
    throw tooMuch(place(), longest, `${longest.names.length} functions are nested`);
  }
  if (deepest.bytes > STACK_BYTES) {
    throw tooMuch(place(), deepest, `${deepest.bytes} bytes of stack are needed`);
  }
}

function tooMuch(place: SourceLine, { names }: Chain, what: string): CompileError {
  const reason = `${what}: the limits are ${MAX_FRAMES} functions and ${STACK_BYTES} bytes`;
  const hint = "let one be inlined, or keep fewer values at the same time";
  return new CompileError("LIMIT", place, reason, names.join(" > "), hint);
}

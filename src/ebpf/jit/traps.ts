/** How compiled code ends a run: it calls one import, which throws what the interpreter would. */

import type { EbpfError } from "../errors.ts";
import { misaligned, noHelper, outside, readOnly, tooDeep, tooLong } from "../faults.ts";
import type { Instruction } from "../instruction.ts";
import type { Memory } from "../memory.ts";
import type { AccessSize } from "../opcode.ts";
import { STACK_SIZE } from "../runner.ts";

export const TRAP = {
  outside: 0,
  readOnly: 1,
  misaligned: 2,
  steps: 3,
  depth: 4,
  helper: 5,
} as const;

/** What the errors tell of. */
export interface TrapContext {
  /** The regions; the stack is the last one. */
  readonly memory: Memory;
  /** By slot. */
  readonly instructions: ReadonlyMap<number, Instruction>;
  readonly stepLimit: number;
}

/**
 * @param index slot of the instruction
 * @param address 64 bits; for `helper` its number
 * @param r10 frame pointer of the function that is running
 */
export function trapError(
  context: TrapContext,
  kind: number,
  index: number,
  address: bigint,
  r10: bigint,
): EbpfError {
  const { memory, stepLimit } = context;
  const { size, what, offset } = accessOf(context.instructions.get(index)!);
  // As the interpreter has it: base and offset are added as numbers, not modulo 2^64.
  const at = Number(BigInt.asUintN(64, address - BigInt(offset))) + offset;
  switch (kind) {
    case TRAP.readOnly:
      return readOnly(memory.find(at, size)!, index);
    case TRAP.misaligned:
      return misaligned(size, index);
    case TRAP.steps:
      return tooLong(stepLimit, index);
    case TRAP.depth:
      return tooDeep(index);
    case TRAP.helper:
      return noHelper(Number(address), index);
    default:
      memory.regions.at(-1)!.start = Number(r10) - STACK_SIZE;
      return outside(memory, what, at, size, index);
  }
}

function accessOf(i: Instruction): { size: AccessSize; what: "load" | "store"; offset: number } {
  const { operation } = i.encoding;
  const { offset } = i;
  if (operation.kind === "load") return { size: operation.size, what: "load", offset };
  if (operation.kind === "store") return { size: operation.size, what: "store", offset };
  if (operation.kind === "atomic")
    return { size: operation.bits === 64 ? 8 : 4, what: "store", offset };
  return { size: 8, what: "load", offset: 0 };
}

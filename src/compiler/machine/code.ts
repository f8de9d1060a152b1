/**
 * Machine code before it is encoded: instructions of the real set in blocks, on registers that are still
 * mostly virtual. 0..10 are the machine's own.
 */
import type { Operation } from "../../ebpf/opcode.ts";
import { fetchesOld } from "./fetches.ts";

/** Registers from here on are virtual. */
export const VIRTUAL = 16;
/** R0..R9 can be given to values. */
export const ALLOCATABLE = 10;
/** R0..R5 do not survive a call. */
const CALL_CLOBBERS = [0, 1, 2, 3, 4, 5];

export interface MachineInstruction {
  operation: Operation;
  dst: number;
  src: number;
  imm: number;
  offset: number;
  high: number;
  /** Position in the row of all files. */
  at: number;
  /** Registers that a call reads. */
  args?: readonly number[];
  /** Which of the program's functions a call calls. */
  callee?: number;
}

export interface MachineBlock {
  readonly id: number;
  code: MachineInstruction[];
  /** Where the conditional jump at the end leads. */
  taken?: MachineBlock;
  jump?: MachineInstruction;
  /** Where control goes otherwise; undefined after an exit. */
  next?: MachineBlock;
  /** Position of the jump in the source. */
  at: number;
}

export interface MachineFunction {
  readonly name: string;
  readonly entry: MachineBlock;
  blocks: MachineBlock[];
  /** Bytes of stack in use. */
  stack: number;
  nextRegister: number;
}

export function successorsOf(block: MachineBlock): MachineBlock[] {
  return [block.taken, block.next].filter((b) => b !== undefined);
}

/** A copy between registers, which may vanish. */
export function isMove(i: MachineInstruction): boolean {
  const o = i.operation;
  return o.kind === "alu" && o.op === "mov" && o.bits === 64 && o.source === "reg";
}

export function readsOf(i: MachineInstruction): readonly number[] {
  const o = i.operation;
  switch (o.kind) {
    case "alu":
    case "jump":
      if (o.op === "mov") return o.source === "reg" ? [i.src] : [];
      return o.source === "reg" ? [i.dst, i.src] : [i.dst];
    case "movsx":
    case "load":
      return [i.src];
    case "neg":
    case "swap":
      return [i.dst];
    case "store":
      return o.source === "reg" ? [i.dst, i.src] : [i.dst];
    case "atomic":
      return o.op === "cmpxchg" ? [i.dst, i.src, 0] : [i.dst, i.src];
    case "call":
      return i.args ?? [];
    case "exit":
      return [0];
    default:
      return [];
  }
}

export function writesOf(i: MachineInstruction): readonly number[] {
  const o = i.operation;
  switch (o.kind) {
    case "alu":
    case "movsx":
    case "neg":
    case "swap":
    case "load":
    case "wide":
      return [i.dst];
    case "atomic":
      return fetchesOld(o.op) ? [i.src] : o.op === "cmpxchg" ? [0] : [];
    case "call":
      return CALL_CLOBBERS;
    default:
      return [];
  }
}

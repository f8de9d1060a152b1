/**
 * Machine code before encoding: instructions of the eBPF set in blocks, on mostly virtual
 * registers. 0..10 are the machine's own.
 */
import type { Operation } from "../../ebpf/opcode.ts";
import { fetchesOld } from "./fetches.ts";

/** First virtual register. */
export const VIRTUAL = 16;
/** R0..R9 are allocatable. */
export const ALLOCATABLE = 10;
/** R0..R5 are clobbered by a call. */
const CALL_CLOBBERS = [0, 1, 2, 3, 4, 5];

export interface MachineInstruction {
  operation: Operation;
  dst: number;
  src: number;
  imm: number;
  offset: number;
  high: number;
  /** Position in the concatenation of all files. */
  at: number;
  /** Registers that a call reads. */
  args?: readonly number[];
  /** Index of the called function in the program. */
  callee?: number;
}

export interface MachineBlock {
  readonly id: number;
  code: MachineInstruction[];
  /** Target of the conditional jump at the end. */
  taken?: MachineBlock;
  jump?: MachineInstruction;
  /** The other successor; undefined after an exit. */
  next?: MachineBlock;
  /** Position of the jump in the source. */
  at: number;
}

export interface MachineFunction {
  readonly name: string;
  readonly entry: MachineBlock;
  blocks: MachineBlock[];
  /** Used stack in bytes. */
  stack: number;
  nextRegister: number;
}

export function successorsOf(block: MachineBlock): MachineBlock[] {
  return [block.taken, block.next].filter((b) => b !== undefined);
}

/** True for a copy between registers, which coalescing may remove. */
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

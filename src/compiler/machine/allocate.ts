/**
 * Register allocation: colouring of the interference graph. Copies are coalesced aggressively
 * first. If that leaves too few registers, they are coalesced again conservatively (Briggs' and
 * George's tests). Registers without a colour are spilled.
 */
import { CompileError } from "../errors.ts";
import {
  ALLOCATABLE,
  isMove,
  type MachineBlock,
  type MachineFunction,
  type MachineInstruction,
  readsOf,
  VIRTUAL,
  writesOf,
} from "./code.ts";
import { Graph } from "./graph.ts";
import { backwards, liveOut } from "./liveness.ts";
import { STACK_BYTES } from "./stack.ts";

const FRAME_POINTER = 10;

/** Assigns a machine register or a stack slot to every virtual register. */
export function allocate(func: MachineFunction, place: () => CompileError["place"]): void {
  const unspillable = new Set<number>();
  for (;;) {
    const bold = colour(func, unspillable, false);
    const result = bold.spilled.length === 0 ? bold : colour(func, unspillable, true);
    if (result.spilled.length === 0) return rename(func, result.colours);
    for (const group of result.spilled) {
      func.stack += 8;
      if (func.stack > STACK_BYTES) {
        const hint = "keep fewer values at the same time";
        throw new CompileError("LIMIT", place(), "the stack of 512 bytes is exhausted", "", hint);
      }
      spill(func, new Set(group), -func.stack, unspillable);
    }
  }
}

function colour(func: MachineFunction, unspillable: ReadonlySet<number>, careful: boolean) {
  const graph = new Graph(func.nextRegister);
  const live = liveOut(func);
  const moves: MachineInstruction[] = [];
  for (const block of func.blocks) {
    backwards(block, new Set(live.get(block)), (instruction, after) => {
      const move = isMove(instruction);
      if (move) moves.push(instruction);
      for (const written of writesOf(instruction)) {
        for (const other of after) {
          if (!(move && other === instruction.src)) graph.connect(written, other);
        }
      }
      for (const register of readsOf(instruction)) graph.use(register);
      for (const register of writesOf(instruction)) graph.use(register);
    });
  }
  graph.coalesce(moves, careful);
  return graph.colour(unspillable);
}

function rename(func: MachineFunction, colours: (register: number) => number): void {
  for (const block of func.blocks) {
    for (const i of [...block.code, ...(block.jump ? [block.jump] : [])]) {
      i.dst = colours(i.dst);
      i.src = colours(i.src);
    }
    block.code = block.code.filter((i) => !(isMove(i) && i.dst === i.src));
  }
}

/**
 * Spills registers. Those that are never live at the same time share a stack slot: each reader
 * loads it, each writer stores it, and copies between them vanish.
 */
function spill(
  func: MachineFunction,
  group: ReadonlySet<number>,
  offset: number,
  unspillable: Set<number>,
): void {
  const isIn = (register: number): boolean => group.has(register);
  for (const block of func.blocks) {
    const code: MachineInstruction[] = [];
    const all = block.jump === undefined ? block.code : [...block.code, block.jump];
    for (const instruction of all) {
      if (isMove(instruction) && isIn(instruction.dst) && isIn(instruction.src)) continue;
      const reads = readsOf(instruction).some(isIn);
      const writes = writesOf(instruction).some(isIn);
      const temporary = reads || writes ? func.nextRegister++ : 0;
      if (temporary !== 0) unspillable.add(temporary);
      if (reads) code.push(access("load", temporary, offset, instruction.at));
      if (isIn(instruction.dst)) instruction.dst = temporary;
      if (isIn(instruction.src)) instruction.src = temporary;
      if (instruction !== block.jump) code.push(instruction);
      if (writes) code.push(access("store", temporary, offset, instruction.at));
    }
    block.code = code;
  }
}

function access(
  kind: "load" | "store",
  register: number,
  offset: number,
  at: number,
): MachineInstruction {
  const base = { imm: 0, high: 0, offset, at };
  return kind === "load"
    ? { operation: { kind, size: 8, signed: false }, dst: register, src: FRAME_POINTER, ...base }
    : { operation: { kind, size: 8, source: "reg" }, dst: FRAME_POINTER, src: register, ...base };
}

export { ALLOCATABLE, type MachineBlock, VIRTUAL };

/** Emits calls: of helpers, which are imports, and of functions of the program. */

import { FRAME_POINTER, type Instruction, targetOf } from "../instruction.ts";
import type { Operation } from "../opcode.ts";
import { MAX_FRAMES, STACK_SIZE, STACK_TOP } from "../runner.ts";
import type { Registers } from "./arithmetic.ts";
import { COUNTER_OFFSET } from "./linear-memory.ts";
import { TRAP } from "./traps.ts";
import { type Code, LOAD } from "./wasm.ts";

/** Indices of callees. */
export interface Callees {
  readonly trap: number;
  readonly byNumber: number;
  readonly resolve: number;
  /** By helper number. */
  readonly helpers: ReadonlyMap<number, number>;
  /** By slot of the first instruction. */
  readonly locals: ReadonlyMap<number, number>;
}

/** Context of a call: its function. */
export interface CallContext {
  readonly code: Code;
  readonly registers: Registers;
  /** An i64 local: instructions left of the step limit. */
  readonly fuel: number;
  readonly callees: Callees;
  /** True in the program's first function. */
  readonly first: boolean;
  /** Stores the rest of the step limit; `more` counted instructions have not run. */
  readonly sync: (more: number) => void;
  /** Ends the run. */
  readonly trap: (kind: number, index: number, address?: bigint) => void;
}

/** R1 to R5. */
const PARAMETERS = [1, 2, 3, 4, 5] as const;

/** @param later instructions after the call that are already counted */
export function emitCall(
  context: CallContext,
  i: Instruction,
  { target }: Extract<Operation, { kind: "call" }>,
  later: number,
): void {
  const { code, registers, callees, sync } = context;
  switch (target) {
    case "local":
      return emitLocal(context, i, later);
    case "helper":
      return emitHelper(context, i, later);
    case "register":
      sync(later + 1);
      for (const n of PARAMETERS) code.get(registers[n]!);
      code.get(registers[i.dst]!).i32(i.index).call(callees.byNumber);
      code.set(registers[0]!);
      return;
    case "btf":
      return;
  }
}

function emitHelper(context: CallContext, i: Instruction, later: number): void {
  const { code, registers, callees } = context;
  context.sync(later + 1);
  const helper = callees.helpers.get(i.imm >>> 0);
  if (helper === undefined) return context.trap(TRAP.helper, i.index, BigInt(i.imm >>> 0));
  for (const n of PARAMETERS) code.get(registers[n]!);
  code.call(helper).set(registers[0]!);
}

function emitLocal(context: CallContext, i: Instruction, later: number): void {
  const { code, registers: r, callees, fuel } = context;
  const deepest = STACK_TOP - (MAX_FRAMES - 1) * STACK_SIZE;
  if (!context.first) {
    code.get(r[FRAME_POINTER]!).i64(BigInt(deepest)).op("i64_eq").if();
    context.sync(later + 1);
    context.trap(TRAP.depth, i.index);
    code.op("end");
  }
  context.sync(later);
  for (let n = 0; n < FRAME_POINTER; n++) code.get(r[n]!);
  code.get(r[FRAME_POINTER]!).i64(BigInt(STACK_SIZE)).op("i64_sub");
  code.call(callees.locals.get(targetOf(i)!)!).set(r[0]!);
  code.i32(0).access(LOAD[8], COUNTER_OFFSET).i64(BigInt(later)).op("i64_sub").set(fuel);
}

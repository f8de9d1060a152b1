/**
 * The abstract effect of each instruction. One function per type of instruction; `step` selects it
 * by the opcode's row.
 */
import type { ProgramForm, ProgramName } from "../../abi/programs.ts";
import { type Instruction, slotsOf, targetOf } from "../instruction.ts";
import type { AccessSize, AluOp, Bits, Operation } from "../opcode.ts";
import { fetchesIntoSrc } from "../structure.ts";
import {
  type Access,
  checkAccess,
  checkReadable,
  isAligned,
  readMemory,
  uninitialised,
  writeMemory,
  writeUnknown,
} from "./access.ts";
import { copyPointer, pointerArithmetic } from "./addresses.ts";
import { compute, loaded, movedSigned, negate, swapped, zeroExtend } from "./alu.ts";
import { callHelper } from "./call.ts";
import { assume, immediate } from "./compare.ts";
import type { Flow } from "./flow.ts";
import { LARGEST_RESULT } from "./helpers.ts";
import { Refused } from "./refusal.ts";
import { constant, linkedCopy, related, type Scalar } from "./scalar.ts";
import type { State } from "./state.ts";
import { describe, describeOffset, type Pointer, type Value } from "./value.ts";

type Of<K extends Operation["kind"]> = Extract<Operation, { kind: K }>;

/** Context of a step besides the state. Receives the paths that are not followed at once. */
export interface Surroundings {
  readonly flow: Flow;
  readonly contextSize: number;
  readonly form: ProgramForm;
  readonly program: ProgramName | undefined;
  /** Records another path, to be explored later. `taken`: by the jump at `index`. */
  fork(state: State, slot: number, index: number, taken: boolean): void;
  /** Records that the jump at `index` was followed in this direction. */
  followed(index: number, taken: boolean): void;
  /** Records that function `fn` uses the stack down to `depth` bytes below its frame pointer. */
  useStack(fn: number, depth: number): void;
}

export const DONE = -1;
/** Executes one instruction. @returns the slot to continue at, or DONE. @throws Refused */
export function step(around: Surroundings, state: State, i: Instruction): number {
  const { operation } = i.encoding;
  const next = i.index + slotsOf(i);
  switch (operation.kind) {
    case "alu":
      alu(state, i, operation);
      return next;
    case "movsx":
      moveSigned(state, i, operation);
      return next;
    case "neg":
      state.registers[i.dst] = negate(number(state, i.dst, i.index), operation.bits);
      return next;
    case "swap":
      state.registers[i.dst] = swapped(
        number(state, i.dst, i.index),
        operation.to,
        operation.width,
      );
      return next;
    case "wide":
      state.registers[i.dst] = wide(i, operation);
      return next;
    case "load":
      load(around, state, i, operation);
      return next;
    case "store":
      store(around, state, i, operation);
      return next;
    case "atomic":
      atomic(around, state, i, operation);
      return next;
    case "jump":
      return jump(around, state, i, operation);
    case "goto":
      return targetOf(i)!;
    case "call":
      return call(around, state, i, operation);
    case "exit":
      return exit(around, state, i);
    case "packet":
      throw unsupported(
        i,
        "legacy packet access",
        "bpfhv programs see packets as buffers of the context",
      );
  }
}

function unsupported(i: Instruction, what: string, fix: string): Refused {
  return new Refused("UNSUPPORTED", i.index, `${what} cannot be proved`, fix);
}

/** Returns the value of an initialised register. */
function readRegister(state: State, register: number, index: number): Value {
  const value = state.registers[register];
  if (value === undefined) throw uninitialised(register, index);
  return value;
}

/** Returns the value of a register that holds a number. */
function number(state: State, register: number, index: number): Scalar {
  const value = readRegister(state, register, index);
  if (!value.isPointer) return value;
  throw new Refused(
    "POINTER_ARITHMETIC",
    index,
    `r${register} is an address (${describe(value)}), a number is needed here`,
    "only 64-bit addition and subtraction work on addresses",
  );
}

function alu(state: State, i: Instruction, { op, bits, source }: Of<"alu">): void {
  const { registers } = state;
  if (source === "imm") checkConstant(i, op, bits);
  const b = source === "imm" ? immediate(i.imm) : readRegister(state, i.src, i.index);
  if (op === "mov") {
    if (b.isPointer) registers[i.dst] = copyPointer(b, bits, i);
    else {
      const moved = bits === 64 ? b : zeroExtend(b);
      registers[i.dst] = moved === b ? linkedCopy(b) : moved;
    }
    return;
  }
  const a = readRegister(state, i.dst, i.index);
  if (a.isPointer || b.isPointer) {
    registers[i.dst] = pointerArithmetic(i, op, bits, a, b);
    return;
  }
  const result = compute(op, bits, a, b);
  const relates = (op === "add" || op === "sub") && a.linked && b.bits.isConstant;
  registers[i.dst] = relates && !result.isConstant ? related(result) : result;
  if (relates && !a.related) state.replace(a, related(a), Number.POSITIVE_INFINITY);
}

function checkConstant(i: Instruction, op: AluOp, bits: Bits): void {
  const shifts = op === "lsh" || op === "rsh" || op === "arsh";
  if (shifts && (i.imm < 0 || i.imm >= bits)) {
    throw new Refused(
      "CONSTANT",
      i.index,
      `shifts ${bits} bits by ${i.imm}`,
      `shift by 0 to ${bits - 1}`,
    );
  }
  const divides = op === "div" || op === "mod" || op === "sdiv" || op === "smod";
  if (divides && i.imm === 0) {
    throw new Refused("CONSTANT", i.index, "divides by the constant 0", "divide by another number");
  }
}

function moveSigned(state: State, i: Instruction, { from, bits }: Of<"movsx">): void {
  const value = number(state, i.src, i.index);
  const extended = movedSigned(value, from, bits);
  // The extension changes nothing: kernels link both registers, and know what it left of both.
  if (!value.bits.isConstant && value.umax < 2 ** (from - 1)) {
    state.replace(value, linkedCopy(extended), Number.POSITIVE_INFINITY);
  }
  state.registers[i.dst] = extended;
}

function wide(i: Instruction, { value }: Of<"wide">): Scalar {
  if (value === "value") return constant(i.imm, i.high);
  throw unsupported(
    i,
    `a 64-bit load of ${value}`,
    "programs have no maps, and no data but the context",
  );
}

function accessOf(
  around: Surroundings,
  state: State,
  i: Instruction,
  what: string,
  register: number,
  size: number,
): { access: Access; pointer: Pointer } {
  const { offset, index } = i;
  const access = { index, what, register, value: state.registers[register], offset, size };
  const pointer = checkAccess(access, around.contextSize);
  if (pointer.region === "stack") {
    around.useStack(state.frames[pointer.frame]!.fn, -(pointer.min + offset));
  }
  return { access, pointer };
}

function load(around: Surroundings, state: State, i: Instruction, { size, signed }: Of<"load">) {
  const { access, pointer } = accessOf(around, state, i, "load", i.src, size);
  state.registers[i.dst] = readMemory(state, pointer, access, signed);
}

function store(around: Surroundings, state: State, i: Instruction, { size, source }: Of<"store">) {
  const value = source === "imm" ? immediate(i.imm) : readRegister(state, i.src, i.index);
  const { access, pointer } = accessOf(around, state, i, "store", i.dst, size);
  writeMemory(state, pointer, access, value);
}

function atomic(around: Surroundings, state: State, i: Instruction, { op, bits }: Of<"atomic">) {
  const size: AccessSize = bits === 64 ? 8 : 4;
  const operand = readRegister(state, i.src, i.index);
  if (operand.isPointer) throw leak(i, `an atomic puts an address (r${i.src}) into memory`);
  if (op === "cmpxchg") number(state, 0, i.index);
  const { access, pointer } = accessOf(around, state, i, "atomic", i.dst, size);
  if (!isAligned(pointer, i.offset, size)) {
    throw new Refused(
      "ATOMIC_ALIGNMENT",
      i.index,
      `atomic of ${size} bytes at ${pointer.region} + ${describeOffset(pointer, i.offset)} ` +
        "is not aligned",
      `use a multiple of ${size}`,
    );
  }
  if (pointer.region === "stack") {
    if (!pointer.isConstant) {
      throw new Refused(
        "STACK_BOUNDS",
        i.index,
        `atomic of ${size} bytes at a variable offset into the stack (${describe(pointer)}), ` +
          "which kernels refuse",
        "load, compute and store: the stack is not shared",
      );
    }
    checkReadable(state, pointer, access);
    writeUnknown(state, pointer, access);
  }
  if (op === "cmpxchg") state.registers[0] = loaded(size, false);
  else if (fetchesIntoSrc(i)) state.registers[i.src] = loaded(size, false);
}

function leak(i: Instruction, message: string): Refused {
  return new Refused("POINTER_LEAK", i.index, message, "use a number");
}

function jump(around: Surroundings, state: State, i: Instruction, operation: Of<"jump">): number {
  const { op, bits, source } = operation;
  const target = targetOf(i)!;
  const next = i.index + 1;
  const a = readRegister(state, i.dst, i.index);
  const b = source === "imm" ? immediate(i.imm) : readRegister(state, i.src, i.index);
  if (a.isPointer || b.isPointer) return jumpOnPointer(around, state, i, operation, a, b);
  const same = source === "reg" && i.src === i.dst;
  const yes = assume(op, bits, true, a, b, same);
  const no = assume(op, bits, false, a, b, same);
  if (yes === null || no === null) {
    // Only one branch is possible, and it refines nothing: its operands were all within it already.
    return yes === null ? next : target;
  }
  const other = state.copy();
  const src = source === "reg" ? i.src : undefined;
  learn(other, i.dst, src, a, b, yes);
  around.fork(other, target, i.index, true);
  if (op === "set" && (a.related || b.related)) state.forgetRelated();
  learn(state, i.dst, src, a, b, no);
  around.followed(i.index, false);
  return next;
}

/** Applies a refinement to all places that hold the operands. */
function learn(
  state: State,
  dst: number,
  src: number | undefined,
  a: Scalar,
  b: Scalar,
  told: { readonly a: Scalar; readonly b: Scalar },
): void {
  const left = state.replace(b, b === a ? told.a : told.b, MAX_LINKED);
  if (b !== a) state.replace(a, told.a, left);
  if (src !== undefined && src !== dst && b !== a) state.registers[src] = told.b;
  state.registers[dst] = told.a;
}

/** Number of places that kernels keep equal (LINKED_REGS_MAX). Further ones lose their link. */
const MAX_LINKED = 6;

/**
 * An address is never 0. Kernels (reg_not_null) rely on that only for the context: after a
 * comparison of a stack address they follow both branches. Addresses of one region may be compared,
 * but that refines nothing.
 */
function jumpOnPointer(
  around: Surroundings,
  state: State,
  i: Instruction,
  { op, bits }: Of<"jump">,
  a: Value,
  b: Value,
): number {
  const target = targetOf(i)!;
  const zero = !b.isPointer && b.isConstant && b.bits.vl === 0 && b.bits.vh === 0;
  const testsForZero = bits === 64 && zero && (op === "eq" || op === "ne");
  if (testsForZero && a.isPointer && a.region === "context")
    return op === "eq" ? i.index + 1 : target;
  const alike = a.isPointer && b.isPointer && a.region === b.region && a.frame === b.frame;
  const comparable = testsForZero || alike;
  if (bits === 32 || !comparable) {
    throw new Refused(
      "POINTER_LEAK",
      i.index,
      `compares an address with something else (${describe(a)}, ${describe(b)})`,
      "compare addresses of the same region, with all 64 bits; compare indices with numbers",
    );
  }
  around.fork(state.copy(), target, i.index, true);
  around.followed(i.index, false);
  return i.index + 1;
}

function call(around: Surroundings, state: State, i: Instruction, { target }: Of<"call">): number {
  switch (target) {
    case "helper":
      callHelper(around, state, i);
      return i.index + 1;
    case "local": {
      const slot = targetOf(i)!;
      state.call(i.index + 1, around.flow.functionAt(slot));
      return slot;
    }
    case "register":
      throw unsupported(i, "a call through a register", "call the function itself");
    case "btf":
      throw unsupported(
        i,
        "a call of a kernel function",
        "bpfhv programs call helpers and their own functions",
      );
  }
}

function exit(around: Surroundings, state: State, i: Instruction): number {
  const result = state.registers[0];
  const whole = state.frames.length === 1;
  if (result === undefined) throw uninitialised(0, i.index);
  // Kernels refuse a stack address of any function as a function's result.
  if (result.isPointer && (whole || result.region === "stack")) {
    throw leak(i, `returns an address (${describe(result)})`);
  }
  if (!whole) return state.leave();
  if (!result.isPointer) checkResult(around, result, i);
  return DONE;
}

/** The driver reads the result as a signed 32-bit number. */
function checkResult({ program }: Surroundings, result: Scalar, i: Instruction): void {
  const limit = program === undefined ? undefined : LARGEST_RESULT[program];
  if (limit === undefined || result.smax32 <= limit) return;
  const wanted = limit === 0 ? "0, or a negative error" : "1, 0, or a negative error";
  throw new Refused(
    "RETURN_VALUE",
    i.index,
    `${program} returns ${result.smin32 === result.smax32 ? "" : "up to "}${result.smax32}`,
    `return ${wanted} (as a signed 32-bit number)`,
  );
}

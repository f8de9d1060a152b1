/**
 * Loads, stores and atomics. The region that the address probably points into is
 * tested in line. A function of the module, shared by the programs' functions,
 * handles all other regions and every fault.
 */

import { plainAtomic } from "../arithmetic.ts";
import { FRAME_POINTER, type Instruction } from "../instruction.ts";
import type { AccessSize, Operation } from "../opcode.ts";
import { STACK_SIZE, STACK_TOP } from "../runner.ts";
import { fetchesIntoSrc } from "../structure.ts";
import type { Registers } from "./arithmetic.ts";
import type { Layout, Window } from "./layout.ts";
import type { Range } from "./range.ts";
import { TRAP } from "./traps.ts";
import { ATOMIC, Code, LOAD, LOAD_SIGNED, STORE, TYPE } from "./wasm.ts";

/** Types of access, as passed to the shared function. */
const READ = 0;
const WRITE = 1;
const ATOMIC_WRITE = 2;
const TWO_32 = 2 ** 32;
/** Regions that are tested in line. */
const MAX_INLINE = 3;

/** Context of an access: its function. */
export interface AccessContext {
  readonly code: Code;
  readonly registers: Registers;
  /** An i64 local for addresses. */
  readonly scratch: number;
  /** True in the program's first function, whose frame has a constant address. */
  readonly first: boolean;
  readonly layout: Layout;
  /** Range of a register's values at the instruction. */
  readonly known: (register: number) => Range;
  /** The window that an access was proved to be in, by its slot. */
  readonly proven: (index: number) => Window | undefined;
  /** Index of the shared function. */
  readonly resolve: number;
  /** Stores the instruction counter as of the instruction. */
  readonly sync: () => void;
}

/** One access: the operands to push after the address, and the operation at address + offset. */
interface Access {
  readonly base: number;
  readonly offset: number;
  readonly index: number;
  readonly size: AccessSize;
  readonly kind: typeof READ | typeof WRITE | typeof ATOMIC_WRITE;
  readonly operands: () => void;
  readonly perform: (offset: number) => void;
}

type Reach = Pick<Access, "offset" | "size" | "kind">;
/** A load or store as encoded in its instruction; `base` is a register. */
type Plain = Reach & Pick<Access, "base">;

export function emitMemory(
  context: AccessContext,
  i: Instruction,
  operation: Extract<Operation, { kind: "load" | "store" | "atomic" }>,
  guess: Window | undefined,
): void {
  const { code, registers: r } = context;
  const { offset, index } = i;
  const nothing = () => {};
  if (operation.kind === "load") {
    const { size, signed } = operation;
    const opcode = (signed ? LOAD_SIGNED : LOAD)[size];
    const perform = (at: number) => void code.access(opcode, at);
    const access: Access = {
      base: i.src,
      offset,
      index,
      size,
      kind: READ,
      operands: nothing,
      perform,
    };
    emitAccess(context, access, guess);
    code.set(r[i.dst]!);
  } else if (operation.kind === "store") {
    const { size, source } = operation;
    const operands = () => void (source === "imm" ? code.i64(BigInt(i.imm)) : code.get(r[i.src]!));
    const perform = (at: number) => void code.access(STORE[size], at);
    emitAccess(
      context,
      { base: i.dst, offset, index, size, kind: WRITE, operands, perform },
      guess,
    );
  } else emitAtomic(context, i, operation, guess);
}

function emitAtomic(
  context: AccessContext,
  i: Instruction,
  { op, bits }: Extract<Operation, { kind: "atomic" }>,
  guess: Window | undefined,
): void {
  const { code, registers: r } = context;
  const size = bits === 64 ? 8 : 4;
  const modify = op === "cmpxchg" ? "cmpxchg" : plainAtomic(op);
  const value = (register: number) => {
    code.get(r[register]!);
    // The 4-byte forms compare all 64 bits of the expected value with the zero-extended word.
    if (bits === 32) code.op("i32_wrap_i64", "i64_extend_i32_u");
  };
  const operands = () => {
    if (op === "cmpxchg") value(0);
    value(i.src);
  };
  const perform = (at: number) => void code.atomic(ATOMIC[modify][size], size, at);
  const { dst: base, offset, index } = i;
  emitAccess(context, { base, offset, index, size, kind: ATOMIC_WRITE, operands, perform }, guess);
  if (op === "cmpxchg") code.set(r[0]!);
  else if (fetchesIntoSrc(i)) code.set(r[i.src]!);
  else code.op("drop");
}

function emitAccess(context: AccessContext, access: Access, guess: Window | undefined): void {
  const { layout, known, first } = context;
  if (access.base === FRAME_POINTER && inOwnFrame(access)) return emitOwnFrame(context, access);
  const proven = context.proven(access.index);
  if (proven !== undefined) {
    emitAddress(context, access, proven);
    access.operands();
    access.perform(0);
    return;
  }
  const stack = first ? firstFrame(layout) : layout.stack;
  const windows = [...layout.windows, stack].filter((w) => admits(w, access));
  const certain = windows.find((w) => w !== layout.stack && holds(w, access, known(access.base)));
  const likely = guess === layout.stack ? stack : (guess ?? windows[0]);
  let offset = 0;
  if (certain !== undefined) offset = emitCertain(context, access, certain);
  else emitSearch(context, access, putFirst(windows, likely));
  access.operands();
  access.perform(offset);
}

function putFirst<T>(items: readonly T[], item: T): T[] {
  return [...items].sort((a, b) => Number(b === item) - Number(a === item));
}

/** True if the window can hold such an access at any offset. */
export function admits({ length, writable }: Window, { size, kind }: Reach): boolean {
  return length >= size && (kind === READ || writable);
}

/** True if a load or store is in bounds for all values of its base register. */
export function isCertain(layout: Layout, frame: Window | undefined, i: Instruction, base: Range) {
  const access = plainOf(i);
  if (access === undefined) return false;
  const own = access.base === FRAME_POINTER && inOwnFrame(access);
  return own || certainWindow(layout, frame, i, base) !== undefined;
}

/** Returns the window that certainly holds the access; undefined if there is none. */
function certainWindow(
  layout: Layout,
  frame: Window | undefined,
  i: Instruction,
  base: Range,
): Window | undefined {
  const access = plainOf(i);
  if (access === undefined) return undefined;
  const windows = frame === undefined ? layout.windows : [...layout.windows, frame];
  return windows.find((w) => admits(w, access) && holds(w, access, base));
}

/** Returns the load or store of an instruction; undefined for all others, including atomics. */
export function plainOf(i: Instruction): Plain | undefined {
  const { operation } = i.encoding;
  if (operation.kind !== "load" && operation.kind !== "store") return undefined;
  const loads = operation.kind === "load";
  const kind = loads ? READ : WRITE;
  return { base: loads ? i.src : i.dst, offset: i.offset, size: operation.size, kind };
}

/** True if the window holds the access for all values of the base register. */
function holds(window: Window, { offset, size, kind }: Reach, range: Range): boolean {
  if (kind === ATOMIC_WRITE && (range.low + offset) % size !== 0) return false;
  if (kind === ATOMIC_WRITE && range.step % size !== 0) return false;
  const from = range.low + offset;
  return from >= window.base && range.high + offset + size <= window.base + window.length;
}

/**
 * Pushes the address. The test is in line: a call that returns would spill the registers that are
 * live across it, and V8 does not unroll loops with a call.
 */
function emitSearch(context: AccessContext, access: Access, windows: readonly Window[]): void {
  const { code } = context;
  const inline = windows.slice(0, MAX_INLINE);
  for (const window of inline) {
    emitIsInside(context, access, window);
    code.if(TYPE.i32);
    emitAddress(context, access, window);
    code.op("else");
  }
  emitResolve(context, access);
  // Without a return of the call, V8 keeps registers.
  if (inline.length === windows.length) code.op("unreachable");
  for (const _ of inline) code.op("end");
}

/** Pushes 1 if the window holds the access. */
function emitIsInside(context: AccessContext, access: Access, window: Window): void {
  const { code, registers, scratch, layout } = context;
  const { size, kind } = access;
  code.get(registers[access.base]!);
  if (window === layout.stack) {
    // The frame of a called function is at its R10.
    code.i64(BigInt(access.offset + STACK_SIZE)).op("i64_add");
    code.get(registers[FRAME_POINTER]!).op("i64_sub").tee(scratch);
    code
      .i64(BigInt(STACK_TOP + STACK_SIZE - size))
      .get(registers[FRAME_POINTER]!)
      .op("i64_sub");
  } else {
    const { base, length } = window;
    code
      .i64(BigInt(access.offset - base))
      .op("i64_add")
      .tee(scratch);
    code.i64(BigInt(length - size));
  }
  code.op("i64_le_u");
  if (kind !== ATOMIC_WRITE) return;
  code
    .get(scratch)
    .i64(BigInt(size - 1))
    .op("i64_and", "i64_eqz", "i32_and");
}

/**
 * Pushes an address for an access that is certainly in the window. Accesses through one register
 * push the same one if possible, so that V8 computes it once.
 * @returns the access's offset, which WebAssembly adds unsigned, without wrapping
 */
function emitCertain(context: AccessContext, access: Access, window: Window): number {
  const { code, registers, known } = context;
  const shift = window.offset - window.base;
  const { low, high } = known(access.base);
  // All values of the register have the same high half.
  const upper = Math.floor(low / TWO_32) * TWO_32;
  const rest = upper + shift + access.offset;
  if (rest >= 0 && high < upper + TWO_32) {
    code.get(registers[access.base]!).op("i32_wrap_i64");
    return rest;
  }
  const apart = low + shift >= 0 && access.offset >= 0;
  emitShifted(context, access, apart ? shift : shift + access.offset);
  return apart ? access.offset : 0;
}

/** Pushes the offset in the linear memory of an access in the window. */
function emitAddress(context: AccessContext, access: Access, window: Window): void {
  // The offset may be negative, or the base may be below the window: the
  // sum is computed here, because it wraps.
  emitShifted(context, access, window.offset - window.base + access.offset);
}

/** Pushes the base register plus a number, as 32 bits. */
function emitShifted({ code, registers }: AccessContext, { base }: Access, by: number): void {
  code.get(registers[base]!).op("i32_wrap_i64");
  code.i32(Number(BigInt.asIntN(32, BigInt(by)))).op("i32_add");
}

export function firstFrame({ stack }: Layout): Window {
  const offset = stack.offset + stack.length - STACK_SIZE;
  return { ...stack, base: STACK_TOP - STACK_SIZE, length: STACK_SIZE, offset };
}

function inOwnFrame({ offset, size, kind }: Reach): boolean {
  const aligned = kind !== ATOMIC_WRITE || offset % size === 0;
  return offset >= -STACK_SIZE && offset + size <= 0 && aligned;
}

/** R10 plus a constant is known to be in bounds. */
function emitOwnFrame({ code, registers, first, layout }: AccessContext, access: Access): void {
  const { stack } = layout;
  const below = stack.base - stack.offset - access.offset;
  if (first) code.i32(STACK_TOP - below);
  else code.get(registers[FRAME_POINTER]!).i64(BigInt(below)).op("i64_sub", "i32_wrap_i64");
  access.operands();
  access.perform(0);
}

/** Calls the shared function, which returns the offset in the linear memory or ends the run. */
function emitResolve({ code, registers, resolve, sync }: AccessContext, access: Access): void {
  sync();
  code.get(registers[access.base]!).i64(BigInt(access.offset)).op("i64_add");
  code.get(registers[FRAME_POINTER]!).i64(BigInt(access.size)).i32(access.kind).i32(access.index);
  code.call(resolve);
}

/** Parameters: address, R10, size, type, slot; result: the offset in the linear memory. */
export const RESOLVE = {
  params: [TYPE.i64, TYPE.i64, TYPE.i64, TYPE.i32, TYPE.i32],
  results: [TYPE.i32],
} as const;
const [ADDRESS, R10, SIZE, KIND, SLOT, OFFSET] = [0, 1, 2, 3, 4, 5] as const;
export const RESOLVE_LOCALS = [TYPE.i64] as const;

/** The shared function: tries all regions, and ends the run if none holds the access. */
export function resolveBody(layout: Layout, trap: number): Code {
  const code = new Code();
  const fail = (kind: number) =>
    code.i32(kind).get(SLOT).get(ADDRESS).get(R10).call(trap).op("unreachable");
  for (const window of [...layout.windows, layout.stack]) {
    const { base, length, offset, writable } = window;
    code.get(ADDRESS).i64(BigInt(base)).op("i64_sub").tee(OFFSET);
    code.i64(BigInt(length)).op("i64_le_u");
    code.get(SIZE).i64(BigInt(length)).get(OFFSET).op("i64_sub", "i64_le_u", "i32_and");
    if (window === layout.stack) {
      code.get(ADDRESS).get(R10).i64(BigInt(STACK_SIZE)).op("i64_sub", "i64_ge_u", "i32_and");
    }
    code.if();
    if (!writable) {
      code.get(KIND).if();
      fail(TRAP.readOnly);
      code.op("end");
    }
    code.get(KIND).i32(ATOMIC_WRITE).op("i32_eq");
    code.get(ADDRESS).get(SIZE).i64(1n).op("i64_sub", "i64_and").i64(0n).op("i64_ne", "i32_and");
    code.if();
    fail(TRAP.misaligned);
    code.op("end");
    code.get(OFFSET).op("i32_wrap_i64").i32(offset).op("i32_add", "return", "end");
  }
  fail(TRAP.outside);
  return code;
}

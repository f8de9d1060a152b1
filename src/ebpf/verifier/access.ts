/**
 * Memory accesses of a program: the context, whose content the host may change at any time, and the
 * stack, which is tracked.
 */

import type { AccessSize } from "../opcode.ts";
import { STACK_SIZE } from "../runner.ts";
import { loaded, movedSigned, truncated } from "./alu.ts";
import { Refused } from "./refusal.ts";
import { linkedCopy, type Scalar, unknown, unlinked } from "./scalar.ts";
import { type Frame, FULL_SLOT, type Slot, type State } from "./state.ts";
import { describe, describeOffset, type Pointer, type Value } from "./value.ts";

export interface Access {
  readonly index: number;
  /** For messages: "load", "store", "atomic", "helper's output". */
  readonly what: string;
  /** Register that holds the address. */
  readonly register: number;
  readonly value: Value | undefined;
  readonly offset: number;
  readonly size: number;
}

/**
 * Returns the pointer of an access that is proved to be within its region.
 * @throws Refused
 */
export function checkAccess(access: Access, contextSize: number): Pointer {
  const { index, what, register, value, size, offset } = access;
  if (value === undefined) throw uninitialised(register, index);
  if (!value.isPointer) {
    throw new Refused(
      "NOT_A_POINTER",
      index,
      `${what} of ${size} bytes through r${register}, which is a number (${describe(value)})`,
      "only the context (r1 at the start), the stack (r10) and addresses made from them can be accessed",
    );
  }
  const low = value.region === "context" ? 0 : -STACK_SIZE;
  const high = value.region === "context" ? contextSize : 0;
  const from = value.min + offset;
  const to = value.max + offset + size;
  if (!(from >= low && to <= high)) throw outOfBounds(access, value, from, to, high);
  if (low === 0 && value.offset.min < 0) {
    throw new Refused(
      "CONTEXT_BOUNDS",
      index,
      `${what} of ${size} bytes through r${register} (${describe(value)}): kernels refuse an index ` +
        "that may be negative, even if an added constant compensates it",
      "add the constant to the index before adding the index to the address",
    );
  }
  return value;
}

export function uninitialised(register: number, index: number): Refused {
  return new Refused(
    "UNINITIALISED_REGISTER",
    index,
    `r${register} is read, but not initialised on this path`,
    register >= 1 && register <= 5
      ? "set it on every path; calls destroy r1 to r5"
      : "set it on every path that leads here",
  );
}

function outOfBounds(access: Access, p: Pointer, from: number, to: number, high: number): Refused {
  const { what, size, offset, index } = access;
  const where = `${what} of ${size} bytes at ${p.region} + ${describeOffset(p, offset)}`;
  const constantOffset = p.isConstant;
  if (p.region === "stack") {
    return new Refused(
      "STACK_BOUNDS",
      index,
      `${where} is outside the frame's ${STACK_SIZE} bytes (-${STACK_SIZE}..-1)`,
      constantOffset
        ? `use offsets from -${STACK_SIZE} to -${size}`
        : "bound the index by a mask or a comparison with a constant",
    );
  }
  if (from < 0) {
    return new Refused(
      "CONTEXT_BOUNDS",
      index,
      `${where} may be before its start`,
      constantOffset
        ? "use an offset that is not negative"
        : "make the index unsigned, or compare it with 0 first",
    );
  }
  return new Refused(
    "CONTEXT_BOUNDS",
    index,
    `${where} may end at ${to}: the context has ${high} bytes`,
    constantOffset
      ? `the last offset for ${size} bytes is ${high - size}; is the context size right?`
      : `mask the index with a constant, or compare it: the offset must be at most ${high - size}`,
  );
}

/** Reads memory. @returns the value of the register afterwards */
export function readMemory(state: State, pointer: Pointer, access: Access, signed: boolean): Value {
  const size = access.size as AccessSize;
  if (pointer.region === "context") return loaded(size, signed);
  const value = readStack(state, pointer, access);
  if (value === undefined) return loaded(size, signed);
  if (value.isPointer) return value;
  if (!signed || size === 8) return truncated(value, size);
  if (value.bits.isConstant || value.umax >= 2 ** (8 * size)) {
    return movedSigned(value, (8 * size) as 8 | 16 | 32, 64);
  }
  // Kernels take a sign-extended value for the spilled number, so nothing is known of either.
  state.forget(value);
  return unknown();
}

/** Writes memory; `value` undefined: unknown bytes. */
export function writeMemory(
  state: State,
  pointer: Pointer,
  access: Access,
  value: Value | undefined,
): void {
  if (pointer.region === "stack") writeStack(state, pointer, access, value);
  else if (value?.isPointer) {
    throw new Refused(
      "POINTER_LEAK",
      access.index,
      `stores an address (${describe(value)}) into the context, which the host reads`,
      "store a number; keep addresses in registers or on the stack",
    );
  }
}

function frameOf(state: State, pointer: Pointer): Frame {
  return state.frames[pointer.frame]!;
}

/** True if the offset is a multiple of the size: unknown bits may have any value. */
export function isAligned({ fixed, offset: { bits } }: Pointer, offset: number, size: number) {
  const within = size - 1;
  return (bits.ml & within) === 0 && ((bits.vl + fixed + offset) & within) === 0;
}

/** Kernels refuse unaligned stack accesses, and the tracking relies on alignment. */
function checkAlignment(pointer: Pointer, { index, what, size, offset }: Access): void {
  if (isAligned(pointer, offset, size)) return;
  throw new Refused(
    "STACK_ALIGNMENT",
    index,
    `${what} of ${size} bytes at stack + ${describeOffset(pointer, offset)} is not aligned`,
    `use a multiple of ${size}`,
  );
}

/** Visits slots and bytes of a stack range, from its first byte (negative offsets) on. */
function eachSlot(from: number, size: number, visit: (slot: number, bytes: number) => void): void {
  for (let at = from; at < from + size; ) {
    const slot = Math.floor((-at - 1) / 8);
    const first = at + 8 * (slot + 1);
    const count = Math.min(8 - first, from + size - at);
    visit(slot, ((1 << count) - 1) << first);
    at += count;
  }
}

/** Checks that a stack range is initialised and holds only numbers. */
export function checkReadable(state: State, pointer: Pointer, access: Access): void {
  const frame = frameOf(state, pointer);
  const from = pointer.min + access.offset;
  const size = pointer.max - pointer.min + access.size;
  eachSlot(from, size, (n, bytes) => {
    const slot = frame.stack?.[n];
    if (((slot?.written ?? 0) & bytes) !== bytes) throw unwritten(access, pointer, n);
    if (slot?.value?.isPointer) throw partOfPointer(access, n);
  });
}

function unwritten(access: Access, pointer: Pointer, slot: number): Refused {
  const { what, size, offset, index } = access;
  return new Refused(
    "STACK_UNINITIALISED",
    index,
    `${what} of ${size} bytes at stack + ${describeOffset(pointer, offset)}: ` +
      `not all bytes of ${-8 * (slot + 1)}..${-8 * slot - 1} were written on this path`,
    "write all of them first, on every path",
  );
}

function partOfPointer({ what, index }: Access, slot: number): Refused {
  return new Refused(
    "POINTER_LEAK",
    index,
    `${what} reads part of an address, kept at stack - ${8 * (slot + 1)}, as a number`,
    "load all eight bytes of it at once, or write numbers there",
  );
}

function readStack(state: State, pointer: Pointer, access: Access): Value | undefined {
  checkAlignment(pointer, access);
  if (pointer.isConstant) {
    const at = pointer.min + access.offset;
    const slot = frameOf(state, pointer).stack?.[(-at - 1) >> 3];
    const starts = (at & 7) === 0;
    if (starts && slot?.value !== undefined && slot.size === access.size) return slot.value;
  }
  checkReadable(state, pointer, access);
  return undefined;
}

function writeStack(
  state: State,
  pointer: Pointer,
  access: Access,
  value: Value | undefined,
): void {
  checkAlignment(pointer, access);
  if (value?.isPointer && !(access.size === 8 && pointer.isConstant)) {
    throw new Refused(
      "POINTER_LEAK",
      access.index,
      "stores an address that cannot be tracked: part of it, or at a variable offset",
      "keep whole addresses at constant offsets from r10",
    );
  }
  if (value?.isPointer && value.region === "stack" && value.frame > pointer.frame) {
    throw new Refused(
      "POINTER_LEAK",
      access.index,
      "stores the address of a called function's stack into its caller's, where it would outlive it",
      "return a number, or let the caller pass the address of its own stack",
    );
  }
  if (pointer.isConstant) writeSlots(state, pointer, access, value);
  else overwriteSome(state, pointer, access);
}

function writeSlots(
  state: State,
  pointer: Pointer,
  access: Access,
  value: Value | undefined,
): void {
  const frame = frameOf(state, pointer);
  const at = pointer.min + access.offset;
  const whole = value !== undefined && (at & 7) === 0 && access.size <= 8;
  eachSlot(at, access.size, (n, bytes) => {
    const before = frame.stack?.[n];
    // The rest of a partly overwritten address must not be read.
    const kept = before?.value?.isPointer ? 0 : (before?.written ?? 0);
    const written = kept | bytes;
    frame.setSlot(n, whole ? keep(value, access.size, written) : { written, size: 0 });
  });
}

function keep(value: Value, size: number, written: number): Slot {
  if (value.isPointer) return { written: FULL_SLOT, value, size };
  // The store truncates the value: register and slot hold different numbers.
  const fits = size === 8 || value.umax < 2 ** (8 * size);
  return { written, value: fits ? linkedCopy(value) : unlinked(value), size };
}

/** Stores at a variable offset: any byte of the range may change, and none is initialised by it. */
function overwriteSome(state: State, pointer: Pointer, access: Access): void {
  const frame = frameOf(state, pointer);
  const from = pointer.min + access.offset;
  const size = pointer.max - pointer.min + access.size;
  eachSlot(from, size, (n) => {
    const slot = frame.stack?.[n];
    if (slot?.value?.isPointer) {
      throw new Refused(
        "POINTER_LEAK",
        access.index,
        `may overwrite part of an address that is kept at stack - ${8 * (n + 1)}`,
        "keep addresses outside of arrays",
      );
    }
    if (slot !== undefined) frame.setSlot(n, { written: slot.written, size: 0 });
  });
}

/** Marks bytes as written by a helper. */
export function writeUnknown(state: State, pointer: Pointer, access: Access): void {
  if (pointer.region !== "stack") return;
  if (pointer.isConstant) writeSlots(state, pointer, access, undefined);
  else overwriteSome(state, pointer, access);
}

/** Returns the byte at a constant offset of the stack, if it is known; else undefined. */
export function knownByte(state: State, frame: number, at: number): number | undefined {
  const n = (-at - 1) >> 3;
  const slot = state.frames[frame]!.stack?.[n];
  const value = slot?.value;
  const place = at + 8 * (n + 1);
  if (value === undefined || value.isPointer || place >= (slot?.size ?? 0)) return undefined;
  return byteOf(value, place);
}

function byteOf(value: Scalar, place: number): number | undefined {
  const { vl, vh, ml, mh } = value.bits;
  const shift = 8 * (place & 3);
  const mask = ((place < 4 ? ml : mh) >>> shift) & 0xff;
  return mask !== 0 ? undefined : ((place < 4 ? vl : vh) >>> shift) & 0xff;
}

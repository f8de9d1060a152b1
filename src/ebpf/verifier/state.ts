/**
 * The abstract machine at one instruction of one path: registers and
 * stack of every function in the call chain.
 */

import { FRAME_POINTER, REGISTERS } from "../instruction.ts";
import { STACK_SIZE } from "../runner.ts";
import { constant, type Scalar, unknown, unlinked } from "./scalar.ts";
import { covers, Pointer, type Value } from "./value.ts";

/** The stack is tracked in slots of eight bytes. Slot 0 ends at the frame pointer. */
export const STACK_SLOTS = STACK_SIZE / 8;
export const FULL_SLOT = 0xff;

/** Immutable. */
export interface Slot {
  /** Bit set of the written bytes: bit 0 is the lowest address. */
  readonly written: number;
  /** Value of the first `size` bytes, if they were stored by one instruction. */
  readonly value?: Value;
  readonly size: number;
}

export class Frame {
  readonly registers: (Value | undefined)[];
  /** Shared between states until one of them writes (copy on write). */
  #stack: (Slot | undefined)[] | null;
  #shared = false;
  /** Return slot in the program; -1 for the program itself. */
  readonly back: number;
  /** Number of the function in `Flow.functions`. */
  readonly fn: number;

  constructor(
    registers: (Value | undefined)[],
    stack: (Slot | undefined)[] | null,
    back: number,
    fn: number,
  ) {
    this.registers = registers;
    this.#stack = stack;
    this.#shared = stack !== null;
    this.back = back;
    this.fn = fn;
  }

  get stack(): readonly (Slot | undefined)[] | null {
    return this.#stack;
  }

  setSlot(n: number, slot: Slot | undefined): void {
    if (this.#stack === null)
      this.#stack = new Array<Slot | undefined>(STACK_SLOTS).fill(undefined);
    else if (this.#shared) this.#stack = this.#stack.slice();
    this.#shared = false;
    this.#stack[n] = slot;
  }

  copy(): Frame {
    this.#shared = true;
    return new Frame(this.registers.slice(), this.#stack, this.back, this.fn);
  }
}

export class State {
  readonly frames: Frame[];

  constructor(frames: Frame[]) {
    this.frames = frames;
  }

  /** Returns the state at the start: R1 is the context, R10 the frame pointer. */
  static initial(): State {
    const registers = new Array<Value | undefined>(REGISTERS).fill(undefined);
    registers[1] = new Pointer("context", 0, 0, constant(0, 0));
    registers[FRAME_POINTER] = new Pointer("stack", 0, 0, constant(0, 0));
    return new State([new Frame(registers, null, -1, 0)]);
  }

  get frame(): Frame {
    return this.frames[this.frames.length - 1]!;
  }

  get registers(): (Value | undefined)[] {
    return this.frame.registers;
  }

  copy(): State {
    return new State(this.frames.map((frame) => frame.copy()));
  }

  /** Enters a function and passes R1..R5 on. `analyseFlow` has refused chains that are too long. */
  call(back: number, fn: number): void {
    const depth = this.frames.length;
    const registers = new Array<Value | undefined>(REGISTERS).fill(undefined);
    for (let n = 1; n <= 5; n++) registers[n] = this.registers[n];
    registers[FRAME_POINTER] = new Pointer("stack", depth, 0, constant(0, 0));
    this.frames.push(new Frame(registers, null, back, fn));
  }

  /** Leaves a function with its R0. @returns the slot to continue at */
  leave(): number {
    const { back, registers } = this.frames.pop()!;
    this.registers[0] = registers[0];
    this.forgetArguments();
    return back;
  }

  /** Clears R1..R5, which calls destroy. */
  forgetArguments(): void {
    for (let n = 1; n <= 5; n++) this.registers[n] = undefined;
  }

  /**
   * Replaces a refined number in all places that hold it, but in at most `places`, the innermost
   * function's first. Further places keep what is known of them, without a link to the others.
   * @returns the remaining number of places
   */
  replace(from: Scalar, to: Scalar, places: number): number {
    // Constants are not linked: kernels give ids only to unknown numbers.
    if (from.bits.isConstant) return places;
    let left = places;
    this.#substitute(from, () => {
      if (left === 0) return unlinked(from);
      left--;
      return to;
    });
    return left;
  }

  /** Makes a number unknown in all places that hold it. */
  forget(number: Scalar): void {
    this.#substitute(number, unknown);
  }

  /** Makes numbers unknown that kernels may recompute from one whose ranges they drop. */
  forgetRelated(): void {
    const known = new Set<Scalar>();
    for (const { registers, stack } of this.frames) {
      for (const value of registers)
        if (value?.isPointer === false && value.related) known.add(value);
      for (const slot of stack ?? []) {
        if (slot?.value?.isPointer === false && slot.value.related) known.add(slot.value);
      }
    }
    for (const number of known) this.forget(number);
  }

  #substitute(from: Scalar, next: () => Scalar): void {
    for (let f = this.frames.length - 1; f >= 0; f--) {
      const frame = this.frames[f]!;
      const { registers, stack } = frame;
      for (let n = 0; n < FRAME_POINTER; n++) if (registers[n] === from) registers[n] = next();
      if (stack === null) continue;
      for (let n = 0; n < STACK_SLOTS; n++) {
        const slot = stack[n];
        if (slot?.value === from) frame.setSlot(n, { ...slot, value: next() });
      }
    }
  }
}

/**
 * Bit sets of registers. `live`: may be read; `relevant`: may
 * decide an address, a branch or a result.
 */
export interface Liveness {
  readonly live: number;
  readonly relevant: number;
}

/**
 * True if the state `seen` at the same instruction covers `now`: each value that is still relevant
 * is allowed by the one seen. A number that is only stored later may be any number.
 */
export function covered(seen: State, now: State, liveness: readonly Liveness[]): boolean {
  if (seen.frames.length !== now.frames.length) return false;
  for (let i = seen.frames.length - 1; i >= 0; i--) {
    const a = seen.frames[i]!;
    const b = now.frames[i]!;
    if (a.back !== b.back || !registersCovered(a, b, liveness[i]!)) return false;
    if (a.stack !== b.stack && !stackCovered(a, b)) return false;
  }
  return linksCovered(seen, now, liveness);
}

function registersCovered(seen: Frame, now: Frame, { live, relevant }: Liveness): boolean {
  for (let n = 0; n < FRAME_POINTER; n++) {
    if (!((live >> n) & 1)) continue;
    const a = seen.registers[n];
    const b = now.registers[n];
    if (a === b || a === undefined) continue;
    if (b === undefined) return false;
    const mayDiffer = !((relevant >> n) & 1) && !a.isPointer;
    if (mayDiffer ? b.isPointer : !covers(a, b)) return false;
  }
  return true;
}

function stackCovered(seen: Frame, now: Frame): boolean {
  if (seen.stack === null) return true;
  for (let n = 0; n < STACK_SLOTS; n++) {
    const a = seen.stack[n];
    const b = now.stack?.[n];
    if (a === b || a === undefined) continue;
    if (b === undefined || (a.written & ~b.written) !== 0) return false;
    if (a.value !== undefined) {
      if (b.value === undefined || a.size !== b.size || !covers(a.value, b.value)) return false;
    } else if (b.value?.isPointer) return false;
  }
  return true;
}

/** Places that held the same number in `seen` must do so in `now`: one comparison refined both. */
function linksCovered(seen: State, now: State, liveness: readonly Liveness[]): boolean {
  const partner = new Map<Value, Value>();
  const linked = (a: Value | undefined, b: Value | undefined): boolean => {
    if (a === undefined || b === undefined || a.isPointer || a.isConstant) return true;
    const known = partner.get(a);
    if (known === undefined) partner.set(a, b);
    return known === undefined || known === b;
  };
  for (let i = 0; i < seen.frames.length; i++) {
    const a = seen.frames[i]!;
    const b = now.frames[i]!;
    const { relevant } = liveness[i]!;
    for (let n = 0; n < FRAME_POINTER; n++) {
      if ((relevant >> n) & 1 && !linked(a.registers[n], b.registers[n])) return false;
    }
    if (a.stack === null) continue;
    for (let n = 0; n < STACK_SLOTS; n++) {
      if (!linked(a.stack[n]?.value, b.stack?.[n]?.value)) return false;
    }
  }
  return true;
}

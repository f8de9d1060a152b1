/**
 * Linear functions with a constant stride that must stay below a bound: one test of the first and
 * the last value covers the iterations between them.
 */
import type { Registers } from "./arithmetic.ts";
import { isNumber, type Linear, number, plus } from "./linear.ts";
import type { Code } from "./wasm.ts";

/** Modulo 2^64: `first`, `first` + `growth`, `first` + 2·`growth`, … each below `length`. */
export interface Stay {
  readonly first: Linear;
  /** A function of invariant registers, like the next. */
  readonly growth: Linear;
  readonly length: Linear;
}

/** What the first of a number of iterations must satisfy, so that the last one does, too. */
interface Room {
  readonly stay: Stay;
  /** Iterations after the first. */
  readonly more: bigint;
  /** The stride, signed; undefined if it is known at run time only. */
  readonly step: bigint | undefined;
  /** The bound of the lower end; undefined if it is known at run time only. */
  readonly end: bigint | undefined;
}

/** @returns undefined if no run can have so many iterations */
function roomOf(stay: Stay, iterations: number): Room | undefined {
  const { growth, length } = stay;
  const more = BigInt(iterations - 1);
  const step = isNumber(growth) ? BigInt.asIntN(64, growth.constant) : undefined;
  if (!isNumber(length)) {
    const far = step !== undefined && magnitude(step) * more >= 2n ** 64n;
    return far ? undefined : { stay, more, step, end: undefined };
  }
  const end = length.constant - magnitude(step ?? 0n) * more;
  if (end <= 0n) return undefined;
  return { stay, more, step, end: step === undefined ? undefined : end };
}

const magnitude = (step: bigint): bigint => (step < 0n ? -step : step);

export interface StayTest {
  /** Before the loop: computes what the test needs of invariant registers. */
  readonly prepare: () => void;
  /** Leaves 1 on the stack if all values stay in bounds for so many iterations. */
  readonly test: () => void;
}

/**
 * @param limits i64 locals, one per sum
 * @returns undefined if there is nothing to test, or one value never stays in bounds so long
 */
export function stayTest(
  code: Code,
  registers: Registers,
  stays: readonly Stay[],
  iterations: number,
  limits: readonly number[],
): StayTest | undefined {
  const rooms: Room[] = [];
  for (const stay of stays) {
    const room = roomOf(stay, iterations);
    if (room === undefined) return undefined;
    rooms.push(room);
  }
  if (rooms.length === 0) return undefined;
  const prepare = () =>
    rooms.forEach((room, n) => {
      if (room.end === undefined) emitLimit(code, registers, room, limits[n]!);
    });
  const test = () =>
    rooms.forEach((room, n) => {
      emitStays(code, registers, room, limits[n]!);
      if (n > 0) code.op("i32_and");
    });
  return { prepare, test };
}

/** The bound, 0 if it would be negative. */
function emitLimit(code: Code, registers: Registers, room: Room, limit: number): void {
  const { more, step } = room;
  const { growth, length } = room.stay;
  const way = step === undefined ? growth : number(magnitude(step));
  emitSum(code, registers, length);
  emitSum(code, registers, plus(number(0n), way, more));
  code.op("i64_sub").i64(0n);
  emitSum(code, registers, way);
  if (isNumber(length)) code.i64(length.constant / more).op("i64_le_u");
  else {
    // A step of 32 bits at most, and then the way, which is no more than 64.
    code.i64(2n ** 32n).op("i64_lt_u");
    emitSum(code, registers, plus(number(0n), way, more));
    emitSum(code, registers, length);
    code.op("i64_le_u", "i32_and");
  }
  code.op("select").set(limit);
}

function emitStays(code: Code, registers: Registers, room: Room, limit: number): void {
  const { stay, more, step, end } = room;
  // With a negative stride the last value is the lowest.
  const down = step !== undefined && step < 0n ? step * more : 0n;
  emitSum(code, registers, plus(stay.first, number(down)));
  if (end === undefined) code.get(limit);
  else code.i64(end);
  code.op("i64_lt_u");
}

/** Leaves the sum on the stack. */
function emitSum(code: Code, registers: Registers, { factors, constant }: Linear): void {
  let empty = true;
  for (const [register, by] of factors) {
    code.get(registers[register]!);
    if (by !== 1n) code.i64(by).op("i64_mul");
    if (!empty) code.op("i64_add");
    empty = false;
  }
  if (empty) code.i64(constant);
  else if (constant !== 0n) code.i64(constant).op("i64_add");
}

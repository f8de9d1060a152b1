/**
 * Sums that go on by the same in each round of a loop, and must stay below a number: tested once for some rounds, as
 * the first and the last of them lie on both sides of the others.
 */
import type { Registers } from "./arithmetic.ts";
import { isNumber, type Linear, number, plus } from "./linear.ts";
import type { Code } from "./wasm.ts";

/** Modulo 2^64: `first`, `first` + `growth`, `first` + 2·`growth`, … each below `length`. */
export interface Stay {
  readonly first: Linear;
  /** Of registers that stay, like the next. */
  readonly growth: Linear;
  readonly length: Linear;
}

/** Where the first of a number of rounds must be, so that the last one stays too. */
interface Room {
  readonly stay: Stay;
  /** Rounds but the first. */
  readonly more: bigint;
  /** What the sum goes on by from round to round, signed; undefined where only the run tells. */
  readonly step: bigint | undefined;
  /** What the lower of both ends must be below; undefined where only the run tells. */
  readonly end: bigint | undefined;
}

/** @returns undefined where no run has so much room */
function roomOf(stay: Stay, rounds: number): Room | undefined {
  const { growth, length } = stay;
  const more = BigInt(rounds - 1);
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
  /** In front of the rounds: computes what the test needs of registers that stay. */
  readonly prepare: () => void;
  /** Leaves 1 on the stack where all sums stay for so many rounds. */
  readonly test: () => void;
}

/**
 * @param limits i64 locals, one per sum
 * @returns undefined where there is nothing to test, or one sum never stays so long
 */
export function stayTest(
  code: Code,
  registers: Registers,
  stays: readonly Stay[],
  rounds: number,
  limits: readonly number[],
): StayTest | undefined {
  const rooms: Room[] = [];
  for (const stay of stays) {
    const room = roomOf(stay, rounds);
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

/** The end of the room, 0 where it would be below that. */
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
  // Of sums that go down, the last one is the lowest.
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

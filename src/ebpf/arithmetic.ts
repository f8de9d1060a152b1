/**
 * The result of each operation, on BigInts of 64 unsigned bits and on numbers of 32
 * unsigned bits. Results may be any integer: a store into a 64- or 32-bit unsigned
 * array reduces them modulo 2^64 or 2^32.
 */
import type { AluOp, AtomicOp, JumpOp } from "./opcode.ts";

const signed64 = (x: bigint): bigint => BigInt.asIntN(64, x);

/** RFC 9669, section 4.1: division by zero gives 0, modulo zero the dividend; shifts use 6 bits. */
export const ALU64: Readonly<Record<AluOp, (a: bigint, b: bigint) => bigint>> = {
  add: (a, b) => a + b,
  sub: (a, b) => a - b,
  mul: (a, b) => a * b,
  div: (a, b) => (b === 0n ? 0n : a / b),
  sdiv: (a, b) => (b === 0n ? 0n : signed64(a) / signed64(b)),
  or: (a, b) => a | b,
  and: (a, b) => a & b,
  lsh: (a, b) => a << (b & 63n),
  rsh: (a, b) => a >> (b & 63n),
  mod: (a, b) => (b === 0n ? a : a % b),
  smod: (a, b) => (b === 0n ? a : signed64(a) % signed64(b)),
  xor: (a, b) => a ^ b,
  mov: (_, b) => b,
  arsh: (a, b) => signed64(a) >> (b & 63n),
};

export const ALU32: Readonly<Record<AluOp, (a: number, b: number) => number>> = {
  add: (a, b) => a + b,
  sub: (a, b) => a - b,
  mul: (a, b) => Math.imul(a, b),
  div: (a, b) => (b === 0 ? 0 : Math.trunc(a / b)),
  sdiv: (a, b) => (b === 0 ? 0 : Math.trunc((a | 0) / (b | 0))),
  or: (a, b) => a | b,
  and: (a, b) => a & b,
  lsh: (a, b) => a << (b & 31),
  rsh: (a, b) => a >>> (b & 31),
  mod: (a, b) => (b === 0 ? a : a % b),
  smod: (a, b) => (b === 0 ? a : (a | 0) % (b | 0)),
  xor: (a, b) => a ^ b,
  mov: (_, b) => b,
  arsh: (a, b) => (a | 0) >> (b & 31),
};

export const JUMP64: Readonly<Record<JumpOp, (a: bigint, b: bigint) => boolean>> = {
  eq: (a, b) => a === b,
  gt: (a, b) => a > b,
  ge: (a, b) => a >= b,
  set: (a, b) => (a & b) !== 0n,
  ne: (a, b) => a !== b,
  sgt: (a, b) => signed64(a) > signed64(b),
  sge: (a, b) => signed64(a) >= signed64(b),
  lt: (a, b) => a < b,
  le: (a, b) => a <= b,
  slt: (a, b) => signed64(a) < signed64(b),
  sle: (a, b) => signed64(a) <= signed64(b),
};

export const JUMP32: Readonly<Record<JumpOp, (a: number, b: number) => boolean>> = {
  eq: (a, b) => a === b,
  gt: (a, b) => a > b,
  ge: (a, b) => a >= b,
  set: (a, b) => (a & b) !== 0,
  ne: (a, b) => a !== b,
  sgt: (a, b) => (a | 0) > (b | 0),
  sge: (a, b) => (a | 0) >= (b | 0),
  lt: (a, b) => a < b,
  le: (a, b) => a <= b,
  slt: (a, b) => (a | 0) < (b | 0),
  sle: (a, b) => (a | 0) <= (b | 0),
};

type Modify<A extends Int32Array | BigUint64Array, V> = (words: A, at: number, value: V) => V;
type PlainAtomic = Exclude<AtomicOp, "cmpxchg" | `fetch_${string}`>;

/** Atomic read-modify-write by operation. All return the old value. */
export const ATOMIC32: Readonly<Record<PlainAtomic, Modify<Int32Array, number>>> = {
  add: Atomics.add,
  or: Atomics.or,
  and: Atomics.and,
  xor: Atomics.xor,
  xchg: Atomics.exchange,
};

export const ATOMIC64: Readonly<Record<PlainAtomic, Modify<BigUint64Array, bigint>>> = {
  add: Atomics.add,
  or: Atomics.or,
  and: Atomics.and,
  xor: Atomics.xor,
  xchg: Atomics.exchange,
};

/** Returns the operation without its "fetch_". */
export function plainAtomic(op: Exclude<AtomicOp, "cmpxchg">): PlainAtomic {
  return op.replace("fetch_", "") as PlainAtomic;
}

/** Reverses the low `bytes` bytes of a value. The others become 0. */
export function swapBytes(value: bigint, bytes: number): bigint {
  let result = 0n;
  for (let i = 0; i < bytes; i++) result = (result << 8n) | ((value >> BigInt(8 * i)) & 0xffn);
  return result;
}

/**
 * Types of values. In registers an unsigned value is zero-extended to 64 bits. A signed one of up
 * to 32 bits is sign-extended to 32 bits with the upper half zero, as 32-bit instructions leave it.
 */
export interface IntType {
  readonly kind: "int";
  readonly name: IntName;
  readonly bits: 8 | 16 | 32 | 64;
  readonly signed: boolean;
}
export type IntName = "u8" | "u16" | "u32" | "u64" | "i8" | "i16" | "i32" | "i64";

const type = (name: IntName): IntType => ({
  kind: "int",
  name,
  bits: Number(name.slice(1)) as IntType["bits"],
  signed: name.startsWith("i"),
});

export const INT_TYPES: Readonly<Record<IntName, IntType>> = {
  u8: type("u8"),
  u16: type("u16"),
  u32: type("u32"),
  u64: type("u64"),
  i8: type("i8"),
  i16: type("i16"),
  i32: type("i32"),
  i64: type("i64"),
};
export const { u8: U8, u16: U16, u32: U32, u64: U64, i32: I32, i64: I64 } = INT_TYPES;

export function isIntName(name: string): name is IntName {
  return Object.hasOwn(INT_TYPES, name);
}

/** Returns the width of the instructions that work on the type. */
export function registerBits(t: IntType): 32 | 64 {
  return t.bits === 64 ? 64 : 32;
}

/** Returns `value` wrapped to the type, as it is in a register (64 bits unsigned). */
export function canonical(value: bigint, t: IntType): bigint {
  const wrapped = t.signed ? BigInt.asIntN(t.bits, value) : BigInt.asUintN(t.bits, value);
  return BigInt.asUintN(registerBits(t), wrapped);
}

/**
 * True if a constant can be written for the type. Negative ones stand for their two's complement.
 */
export function fits(value: bigint, t: IntType): boolean {
  const limit = 1n << BigInt(t.bits);
  return value < limit && value >= -(limit >> 1n);
}

/** Returns the register type of a field's width. */
export function fieldType(width: 1 | 2 | 4 | 8): IntType {
  return { 1: U8, 2: U16, 4: U32, 8: U64 }[width];
}

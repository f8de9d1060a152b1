/** Conversions between integer types, and the common type of two operands. */
import type { Builder } from "./build.ts";
import type { Value } from "./ir.ts";
import { describe, fail, type Operand, type Unit } from "./operands.ts";
import type { Node } from "./parse.ts";
import { canonical, fits, I32, type IntType, registerBits, U32, U64 } from "./types.ts";

/**
 * Returns the low bits of `value` as a canonical value of a
 * type narrower than a register operation.
 */
export function wrap(b: Builder, value: Value, type: IntType): Value {
  if (type.bits >= 32) return value;
  if (!type.signed) return b.binary("and", 32, value, b.constant((1n << BigInt(type.bits)) - 1n));
  const by = b.constant(BigInt(32 - type.bits));
  return b.binary("arsh", 32, b.binary("lsh", 32, value, by), by);
}

/** Converts as a cast in C: modulo 2^bits, sign-extended if the source type is signed. */
export function cast(b: Builder, value: Value, from: IntType, to: IntType): Value {
  if (value.op === "const") {
    const exact = from.signed ? BigInt.asIntN(registerBits(from), value.imm) : value.imm;
    return b.constant(canonical(exact, to));
  }
  if (to.bits === 64) return from.bits < 64 && from.signed ? signExtend(b, value) : value;
  if (to.bits === 32) return from.bits === 64 ? b.make("trunc", 32, [value]) : value;
  const holds = from.bits < to.bits ? to.signed || !from.signed : from === to;
  return holds ? value : wrap(b, value, to);
}

function signExtend(b: Builder, value: Value): Value {
  const by = b.constant(32n);
  return b.binary("arsh", 64, b.binary("lsh", 64, value, by), by);
}

/** Returns the type of a constant that has no context. */
export function defaultType(value: bigint, big: boolean): IntType {
  if (big) return U64;
  return value < 0n ? I32 : U32;
}

/** Returns an integer operand as a value of `type`, if the conversion is lossless. */
export function convert(unit: Unit, node: Node, operand: Operand, type: IntType): Value {
  const { builder } = unit;
  if (operand.kind === "const") {
    if (operand.big !== (type.bits === 64)) {
      const written = type.bits === 64 ? `${operand.value}n` : `${operand.value}`;
      throw fail(
        unit,
        node,
        "TYPE",
        `${describe(operand)} is not of type ${type.name}`,
        `write ${written}`,
      );
    }
    if (!fits(operand.value, type)) {
      const hint = `write ${type.name}(${operand.value}) to wrap it, or a wider type`;
      throw fail(unit, node, "CONSTANT", `${operand.value} does not fit ${type.name}`, hint);
    }
    return builder.constant(canonical(operand.value, type));
  }
  if (operand.kind === "int" && widens(operand.type, type)) {
    return cast(builder, operand.value, operand.type, type);
  }
  const reason = `${describe(operand)} where ${type.name} is wanted`;
  throw fail(unit, node, "TYPE", reason, `write ${type.name}(...)`);
}

/**
 * True if the conversion is implicit: to the same type, or up to 32 bits of the same signedness.
 */
function widens(from: IntType, to: IntType): boolean {
  return from === to || (from.signed === to.signed && from.bits < to.bits && to.bits <= 32);
}

/** Returns the common type of two integer operands; undefined if both are constants. */
export function meet(unit: Unit, node: Node, a: Operand, b: Operand): IntType | undefined {
  const left = a.kind === "int" ? a.type : undefined;
  const right = b.kind === "int" ? b.type : undefined;
  for (const operand of [a, b]) {
    if (operand.kind !== "int" && operand.kind !== "const") {
      const hint = operand.kind === "truth" ? "write u32(...)" : "use an integer";
      throw fail(unit, node, "TYPE", `${describe(operand)} is not an integer`, hint);
    }
  }
  if (left === undefined || right === undefined) return left ?? right;
  if (widens(left, right)) return right;
  if (widens(right, left)) return left;
  const wide = left.bits > right.bits ? left : right;
  const reason = `${left.name} and ${right.name} in one expression`;
  throw fail(unit, node, "TYPE", reason, `convert one, for example with ${wide.name}(...)`);
}

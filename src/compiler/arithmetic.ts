/** Arithmetic on values of one type, wrapping exactly at its width. */
import { wrap } from "./convert.ts";
import type { BinaryOp, Value } from "./ir.ts";
import { fail, type Operand, type Unit } from "./operands.ts";
import type { Node } from "./parse.ts";
import { type IntType, registerBits } from "./types.ts";

const OPERATORS: Readonly<Record<string, BinaryOp>> = {
  "+": "add",
  "-": "sub",
  "*": "mul",
  "/": "div",
  "%": "mod",
  "&": "and",
  "|": "or",
  "^": "xor",
  "<<": "lsh",
  ">>": "rsh",
  ">>>": "rsh",
};
/** Operations whose result can exceed a narrow type. */
const OVERFLOWS: ReadonlySet<BinaryOp> = new Set(["add", "sub", "mul", "lsh"]);
const HINT = "use + - * / % & | ^ << >> >>>";

export function arithmetic(
  unit: Unit,
  node: Node,
  operator: string,
  type: IntType,
  a: Value,
  b: Value,
): Value {
  const op = OPERATORS[operator];
  if (op === undefined) {
    throw fail(unit, node, "UNSUPPORTED", `guest programs have no operator ${operator}`, HINT);
  }
  const { builder } = unit;
  const bits = registerBits(type);
  if (type.signed && (op === "div" || op === "mod")) {
    return wrap(builder, signedDivision(unit, op, bits, a, b), type);
  }
  if (op === "lsh" || op === "rsh") {
    const by =
      type.bits < 32 ? builder.binary("and", 32, b, builder.constant(BigInt(type.bits - 1))) : b;
    if (op === "rsh" && type.signed) return signedShift(unit, operator, type, a, by);
    const shifted = builder.binary(op, bits, a, by);
    return op === "lsh" ? wrap(builder, shifted, type) : shifted;
  }
  const value = builder.binary(op, bits, a, b);
  return OVERFLOWS.has(op) ? wrap(builder, value, type) : value;
}

/** `>>` keeps the sign; `>>>` shifts in zeros at the type's own width. */
function signedShift(unit: Unit, operator: string, type: IntType, a: Value, by: Value): Value {
  const { builder } = unit;
  const bits = registerBits(type);
  if (operator === ">>") return builder.binary("arsh", bits, a, by);
  const low = type.bits < 32 ? builder.constant((1n << BigInt(type.bits)) - 1n) : undefined;
  const unsigned = low === undefined ? a : builder.binary("and", 32, a, low);
  return wrap(builder, builder.binary("rsh", bits, unsigned, by), type);
}

/**
 * Signed division by the unsigned instruction (signed division came with ISA version 4, Linux 6.6):
 * divides magnitudes, then applies the sign, both without a branch.
 */
function signedDivision(unit: Unit, op: "div" | "mod", bits: 32 | 64, a: Value, b: Value): Value {
  const { builder } = unit;
  const signOf = (v: Value) => builder.binary("arsh", bits, v, builder.constant(BigInt(bits - 1)));
  const flip = (v: Value, sign: Value) =>
    builder.binary("sub", bits, builder.binary("xor", bits, v, sign), sign);
  const [signA, signB] = [signOf(a), signOf(b)];
  const result = builder.binary(op, bits, flip(a, signA), flip(b, signB));
  return flip(result, op === "mod" ? signA : builder.binary("xor", bits, signA, signB));
}

export function negate(unit: Unit, operator: "-" | "~", type: IntType, value: Value): Value {
  const { builder } = unit;
  const bits = registerBits(type);
  const all = builder.constant((1n << BigInt(bits)) - 1n);
  const result =
    operator === "-"
      ? builder.binary("sub", bits, builder.constant(0n), value)
      : builder.binary("xor", bits, value, all);
  return wrap(builder, result, type);
}

/** Constants are integers of any size. They must fit when they are converted to a type. */
export function constantArithmetic(
  unit: Unit,
  node: Node,
  operator: string,
  a: Extract<Operand, { kind: "const" }>,
  b: Extract<Operand, { kind: "const" }>,
): Operand {
  if (a.big !== b.big) {
    throw fail(
      unit,
      node,
      "TYPE",
      "a number and a bigint in one expression",
      "write both with n, or none",
    );
  }
  const value = exact(operator, a.value, b.value);
  if (value === undefined) {
    const hint = `${HINT}, by other than 0, shifts by 0 to 64`;
    throw fail(unit, node, "CONSTANT", `${a.value} ${operator} ${b.value} is undefined`, hint);
  }
  return { kind: "const", value, big: a.big };
}

function exact(operator: string, a: bigint, b: bigint): bigint | undefined {
  switch (operator) {
    case "+":
      return a + b;
    case "-":
      return a - b;
    case "*":
      return a * b;
    case "/":
      return b === 0n ? undefined : a / b;
    case "%":
      return b === 0n ? undefined : a % b;
    case "&":
      return a & b;
    case "|":
      return a | b;
    case "^":
      return a ^ b;
    case "<<":
      return b < 0n || b > 64n ? undefined : a << b;
    case ">>":
    case ">>>":
      return b < 0n || b > 64n || (a < 0n && operator === ">>>") ? undefined : a >> b;
    default:
      return undefined;
  }
}

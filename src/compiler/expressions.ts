/** Lowers expressions of the source to values. */
import { arithmetic, constantArithmetic, negate } from "./arithmetic.ts";
import { assign, update } from "./assignments.ts";
import { callExpression } from "./calls.ts";
import { COMPARISONS, conditional, truth } from "./conditions.ts";
import { cast, convert, defaultType, meet } from "./convert.ts";
import type { CompileError } from "./errors.ts";
import type { Block, Value } from "./ir.ts";
import { lookUp } from "./names.ts";
import { describe, fail, fromData, type Operand, type Scope, type Unit } from "./operands.ts";
import type { Node } from "./parse.ts";
import { readMember } from "./places.ts";
import { canonical, type IntType } from "./types.ts";

/** Syntax without effect on the expression inside. */
const TRANSPARENT = new Set([
  "ParenthesizedExpression",
  "TSAsExpression",
  "TSNonNullExpression",
  "TSSatisfiesExpression",
  "TSTypeAssertion",
]);

export function unwrap(node: Node): Node {
  let inner = node;
  while (TRANSPARENT.has(inner.type)) inner = inner.expression;
  return inner;
}

/** @param wanted type of a literal that gets none from the rest of the expression */
export function expression(unit: Unit, scope: Scope, outer: Node, wanted?: IntType): Operand {
  const node = unwrap(outer);
  unit.builder.at = node.start;
  switch (node.type) {
    case "Literal":
      return literal(unit, node);
    case "Identifier":
      return readName(unit, scope, node);
    case "MemberExpression":
      return readMember(unit, scope, node);
    case "BinaryExpression":
      if (node.operator in COMPARISONS) return truth(unit, scope, node);
      return binary(
        unit,
        node,
        node.operator,
        [node.left, node.right],
        operands(unit, scope, node, wanted),
      );
    case "UnaryExpression":
      return unary(unit, scope, node);
    case "LogicalExpression":
      if (node.operator === "??") throw noNullish(unit, node);
      return truth(unit, scope, node);
    case "ConditionalExpression":
      return conditional(unit, scope, node, wanted);
    case "CallExpression":
      return callExpression(unit, scope, node);
    case "AssignmentExpression":
      return assign(unit, scope, node);
    case "UpdateExpression":
      return update(unit, scope, node);
    default:
      throw fail(
        unit,
        node,
        "UNSUPPORTED",
        `guest programs have no ${node.type}`,
        "use integers, fields of layouts, and calls of functions in this file",
      );
  }
}

/** Lowers both sides of an operator. A literal on the right takes the type of the left. */
export function operands(
  unit: Unit,
  scope: Scope,
  node: Node,
  wanted?: IntType,
): readonly [Operand, Operand] {
  const left = expression(unit, scope, node.left, wanted);
  const right = expression(unit, scope, node.right, left.kind === "int" ? left.type : wanted);
  return [left, right];
}

function noNullish(unit: Unit, node: Node): CompileError {
  const reason = "guest programs have no ??: no value is null or undefined";
  return fail(unit, node, "UNSUPPORTED", reason, "use the left side, or compare it and write ?:");
}

function literal(unit: Unit, node: Node): Operand {
  if (typeof node.value === "number" && !Number.isInteger(node.value)) {
    throw fail(unit, node, "CONSTANT", "guest programs have no fractions", "write an integer");
  }
  return fromData(node.value);
}

export function readName(unit: Unit, scope: Scope, node: Node): Operand {
  const binding = lookUp(unit, scope, node);
  if (binding.kind === "fixed") return binding.operand;
  const value = unit.builder.read(binding.variable);
  return binding.type === "bool"
    ? { kind: "truth", value }
    : { kind: "int", type: binding.type, value };
}

/** Returns an integer operand as a value with its type; constants get the default type. */
export function integer(unit: Unit, node: Node, operand: Operand): { type: IntType; value: Value } {
  if (operand.kind === "int") return operand;
  if (operand.kind === "const") {
    const type = defaultType(operand.value, operand.big);
    return { type, value: convert(unit, node, operand, type) };
  }
  throw fail(unit, node, "TYPE", `${describe(operand)} is not an integer`, "use an integer here");
}

/** Applies an arithmetic operator to two operands. */
export function binary(
  unit: Unit,
  node: Node,
  operator: string,
  [left, right]: readonly [Node, Node],
  [a, b]: readonly [Operand, Operand],
): Operand {
  unit.builder.at = node.start;
  const shift = operator === "<<" || operator === ">>" || operator === ">>>";
  if (a.kind === "const" && b.kind === "const") {
    return constantArithmetic(unit, node, operator, a, b);
  }
  if (shift && a.kind === "int" && b.kind === "const") {
    if (b.value < 0n || b.value >= BigInt(a.type.bits)) {
      const reason = `a shift of ${a.type.name} by ${b.value}`;
      throw fail(unit, right, "CONSTANT", reason, `shift by 0 to ${a.type.bits - 1}`);
    }
    const by = unit.builder.constant(b.value);
    return {
      kind: "int",
      type: a.type,
      value: arithmetic(unit, node, operator, a.type, a.value, by),
    };
  }
  const type = shift && a.kind === "int" ? a.type : (meet(unit, node, a, b) as IntType);
  const x = convert(unit, left, a, type);
  const y = convert(unit, right, b, type);
  return { kind: "int", type, value: arithmetic(unit, node, operator, type, x, y) };
}

function unary(unit: Unit, scope: Scope, node: Node): Operand {
  if (node.operator === "!") return truth(unit, scope, node);
  const operand = expression(unit, scope, node.argument);
  unit.builder.at = node.start;
  if (operand.kind === "const") {
    const value = { "-": -operand.value, "~": ~operand.value, "+": operand.value }[
      node.operator as "-"
    ];
    if (value !== undefined) return { ...operand, value };
  }
  if (operand.kind === "int" && (node.operator === "-" || node.operator === "~")) {
    return { ...operand, value: negate(unit, node.operator, operand.type, operand.value) };
  }
  const reason = `${node.operator} of ${describe(operand)}`;
  throw fail(unit, node, "UNSUPPORTED", reason, "use -, ~ or ! of an integer");
}

/**
 * Joins several paths with one result each: jumps from all of them, and a phi.
 * @param wanted the result's type
 * @param preferred its type if all results are constants
 */
export function join(
  unit: Unit,
  node: Node,
  results: readonly { from: Block; operand: Operand }[],
  wanted: IntType | "bool" | undefined,
  to: Block = unit.builder.newBlock(),
  preferred?: IntType,
): Operand {
  const { builder } = unit;
  const [only] = results;
  if (only === undefined) return { kind: "void" };
  const operands = results.map((r) => r.operand);
  const boolean = operands.some(
    (o) => o.kind === "truth" || (o.kind === "data" && typeof o.value === "boolean"),
  );
  const known = wanted ?? (operands.every((o) => o.kind === "const") ? preferred : undefined);
  const type = boolean || known === "bool" ? undefined : (known ?? common(unit, node, operands));
  const variable = { name: "result", bits: type?.bits === 64 ? 64 : 32 } as const;
  for (const { from, operand } of results) {
    builder.block = from;
    builder.write(
      variable,
      type ? convert(unit, node, operand, type) : truthValue(unit, node, operand),
    );
    builder.jump(to);
  }
  builder.enter(to);
  const value = builder.read(variable);
  return type === undefined ? { kind: "truth", value } : { kind: "int", type, value };
}

function common(unit: Unit, node: Node, operands: readonly Operand[]): IntType {
  let met = operands[0]!;
  for (const operand of operands.slice(1)) {
    const type = meet(unit, node, met, operand);
    if (type !== undefined) met = { kind: "int", type, value: unit.builder.constant(0n) };
    else if (operand.kind === "const" && operand.value < 0n) met = operand;
  }
  return integer(unit, node, met).type;
}

/** Returns a boolean operand as 0 or 1. */
export function truthValue(unit: Unit, node: Node, operand: Operand): Value {
  if (operand.kind === "truth") return operand.value;
  if (operand.kind === "data" && typeof operand.value === "boolean") {
    return unit.builder.constant(operand.value ? 1n : 0n);
  }
  const hint = "compare it, for example with !== 0";
  throw fail(unit, node, "TYPE", `${describe(operand)} is not a boolean`, hint);
}

/** Lowers `u16(x)` and the other casts. */
export function castTo(unit: Unit, node: Node, operand: Operand, type: IntType): Operand {
  const { builder } = unit;
  if (operand.kind === "const") {
    return { kind: "int", type, value: builder.constant(canonical(operand.value, type)) };
  }
  if (operand.kind === "int") {
    return { kind: "int", type, value: cast(builder, operand.value, operand.type, type) };
  }
  return { kind: "int", type, value: truthValue(unit, node, operand) };
}

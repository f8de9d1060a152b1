/** Conditions: evaluated at compile time if known, else compiled to jumps. */
import type { JumpOp } from "../ebpf/opcode.ts";
import type { Comparison } from "./build.ts";
import { convert, meet } from "./convert.ts";
import { expression, integer, join, operands, unwrap } from "./expressions.ts";
import type { Block, Value } from "./ir.ts";
import { lookUp } from "./names.ts";
import { describe, fail, type Operand, type Scope, type Unit } from "./operands.ts";
import type { Node } from "./parse.ts";
import { type IntType, U32 } from "./types.ts";

export const COMPARISONS: Readonly<Record<string, readonly [unsigned: JumpOp, signed: JumpOp]>> = {
  "===": ["eq", "eq"],
  "==": ["eq", "eq"],
  "!==": ["ne", "ne"],
  "!=": ["ne", "ne"],
  "<": ["lt", "slt"],
  "<=": ["le", "sle"],
  ">": ["gt", "sgt"],
  ">=": ["ge", "sge"],
};

/**
 * Returns a comparison or logical expression as a value; as data if it is known at compile time.
 */
export function truth(unit: Unit, scope: Scope, node: Node): Operand {
  const { builder } = unit;
  const known = constantTruth(unit, scope, node);
  if (known !== undefined) return { kind: "data", value: known };
  const [yes, no, join] = [builder.newBlock(), builder.newBlock(), builder.newBlock()];
  const result = { name: "truth", bits: 32 } as const;
  condition(unit, scope, node, yes, no);
  for (const [block, value] of [
    [yes, 1n],
    [no, 0n],
  ] as const) {
    builder.enter(block);
    builder.write(result, builder.constant(value));
    builder.jump(join);
  }
  builder.enter(join);
  return { kind: "truth", value: builder.read(result) };
}

/** Returns the truth of an expression of constants only, without building anything. */
function constantTruth(unit: Unit, scope: Scope, outer: Node): boolean | undefined {
  const node = unwrap(outer);
  if (node.type === "UnaryExpression" && node.operator === "!") {
    const inner = constantTruth(unit, scope, node.argument);
    return inner === undefined ? undefined : !inner;
  }
  if (node.type === "LogicalExpression") {
    const left = constantTruth(unit, scope, node.left);
    if (left === undefined) return undefined;
    if (node.operator === "&&" && !left) return false;
    if (node.operator === "||" && left) return true;
    return constantTruth(unit, scope, node.right);
  }
  if (node.type === "BinaryExpression" && node.operator in COMPARISONS) {
    const [a, b] = [known(unit, scope, node.left), known(unit, scope, node.right)];
    return a === undefined || b === undefined ? undefined : compareData(unit, node, a, b);
  }
  const operand = known(unit, scope, node);
  if (operand?.kind === "const") return operand.value !== 0n;
  return operand?.kind === "data" ? Boolean(operand.value) : undefined;
}

/** Returns the operand if it needs no code: literals, constants, and tables of them. */
function known(unit: Unit, scope: Scope, outer: Node): Operand | undefined {
  const node = unwrap(outer);
  const simple: boolean =
    node.type === "Literal" ||
    (node.type === "Identifier" && lookUp(unit, scope, node).kind === "fixed") ||
    (node.type === "MemberExpression" && known(unit, scope, node.object)?.kind === "data") ||
    (node.type === "UnaryExpression" &&
      node.operator !== "!" &&
      known(unit, scope, node.argument) !== undefined) ||
    (node.type === "BinaryExpression" &&
      !(node.operator in COMPARISONS) &&
      known(unit, scope, node.left) !== undefined &&
      known(unit, scope, node.right) !== undefined);
  const operand = simple ? expression(unit, scope, node) : undefined;
  return operand?.kind === "const" || operand?.kind === "data" ? operand : undefined;
}

function compareData(unit: Unit, node: Node, a: Operand, b: Operand): boolean {
  const x = a.kind === "const" || a.kind === "data" ? a.value : undefined;
  const y = b.kind === "const" || b.kind === "data" ? b.value : undefined;
  switch (node.operator) {
    case "===":
    case "==":
      return x === y;
    case "!==":
    case "!=":
      return x !== y;
  }
  if (typeof x !== "bigint" || typeof y !== "bigint") {
    throw fail(
      unit,
      node,
      "TYPE",
      "an order of operands that are not integers",
      "compare integers",
    );
  }
  return node.operator.startsWith("<")
    ? x < y || (node.operator === "<=" && x === y)
    : x > y || (node.operator === ">=" && x === y);
}

/** Builds the jumps of a condition. */
export function condition(unit: Unit, scope: Scope, outer: Node, yes: Block, no: Block): void {
  const node = unwrap(outer);
  const { builder } = unit;
  const fixed = constantTruth(unit, scope, node);
  if (fixed !== undefined) return builder.jump(fixed ? yes : no);
  if (node.type === "UnaryExpression" && node.operator === "!") {
    return condition(unit, scope, node.argument, no, yes);
  }
  if (node.type === "LogicalExpression" && node.operator !== "??") {
    const middle = builder.newBlock();
    if (node.operator === "&&") condition(unit, scope, node.left, middle, no);
    else condition(unit, scope, node.left, yes, middle);
    builder.enter(middle);
    // If the left side is decided, the right one is not built.
    if (builder.block !== undefined) condition(unit, scope, node.right, yes, no);
    return;
  }
  builder.branch(comparison(unit, scope, node), yes, no);
}

function comparison(unit: Unit, scope: Scope, node: Node): Comparison {
  const { builder } = unit;
  if (node.type !== "BinaryExpression" || !(node.operator in COMPARISONS)) {
    const operand = expression(unit, scope, node);
    const value = operand.kind === "truth" ? operand.value : integer(unit, node, operand).value;
    const signed = operand.kind === "int" && operand.type.signed && operand.type.bits < 64;
    return { op: "ne", bits: signed ? 32 : 64, a: value, b: builder.constant(0n) };
  }
  const [a, b] = operands(unit, scope, node);
  builder.at = node.start;
  if (a.kind === "truth" || b.kind === "truth") return compareTruths(unit, node, a, b);
  const type = meet(unit, node, a, b) ?? U32;
  refuseAlwaysKnown(unit, node, type);
  return {
    op: COMPARISONS[node.operator]![type.signed ? 1 : 0],
    // Unsigned values are zero-extended, and verifiers track 64-bit comparisons better.
    bits: type.signed && type.bits < 64 ? 32 : 64,
    a: convert(unit, node.left, a, type),
    b: convert(unit, node.right, b, type),
  };
}

/**
 * Refuses `<` and `>=` of an unsigned value and a literal zero,
 * which are constant, whatever was subtracted.
 */
function refuseAlwaysKnown(unit: Unit, node: Node, type: IntType): void {
  // A named constant may be zero in one specialisation only.
  const isZero = (side: Node): boolean => [0, 0n].includes(unwrap(side).value);
  const [below, at] = isZero(node.right) ? ["<", ">="] : isZero(node.left) ? [">", "<="] : [];
  if (type.signed || (node.operator !== below && node.operator !== at)) return;
  const always = node.operator === at ? "always" : "never";
  const reason = `${type.name} is unsigned: this is ${always} true`;
  const hint = "compare the operands of a difference with each other, or cast to a signed type";
  throw fail(unit, node, "TYPE", reason, hint);
}

function compareTruths(unit: Unit, node: Node, a: Operand, b: Operand): Comparison {
  const [x, y] = [a, b].map((operand) => {
    if (operand.kind === "truth") return operand.value;
    if (operand.kind === "data") return unit.builder.constant(operand.value ? 1n : 0n);
    throw fail(unit, node, "TYPE", `boolean compared with ${describe(operand)}`, "write u32(...)");
  }) as [Value, Value];
  return { op: COMPARISONS[node.operator]![0], bits: 64, a: x, b: y };
}

export function conditional(unit: Unit, scope: Scope, node: Node, wanted?: IntType): Operand {
  const { builder } = unit;
  const fixed = constantTruth(unit, scope, node.test);
  if (fixed !== undefined) {
    return expression(unit, scope, fixed ? node.consequent : node.alternate, wanted);
  }
  const [yes, no] = [builder.newBlock(), builder.newBlock()];
  condition(unit, scope, node.test, yes, no);
  const results = [yes, no].flatMap((block, i) => {
    builder.enter(block);
    if (builder.block === undefined) return [];
    const operand = expression(unit, scope, i === 0 ? node.consequent : node.alternate, wanted);
    return builder.block === undefined ? [] : [{ from: builder.block, operand }];
  });
  const [only] = results;
  if (results.length === 1) {
    builder.block = only!.from;
    return only!.operand;
  }
  return join(unit, node, results, undefined, undefined, wanted);
}

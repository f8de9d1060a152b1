/** Expressions of the source to values. */
import type { JumpOp } from "../ebpf/opcode.ts";
import { arithmetic, constantArithmetic, negate } from "./arithmetic.ts";
import type { Comparison } from "./build.ts";
import { callExpression } from "./calls.ts";
import { cast, convert, defaultType, meet } from "./convert.ts";
import type { Block, Value } from "./ir.ts";
import { lookUp } from "./names.ts";
import {
  describe,
  fail,
  fromData,
  type Layout,
  type Operand,
  type Scope,
  type Unit,
} from "./operands.ts";
import type { Node } from "./parse.ts";
import { canonical, fieldType, type IntType, U32 } from "./types.ts";

const COMPARISONS: Readonly<Record<string, readonly [unsigned: JumpOp, signed: JumpOp]>> = {
  "===": ["eq", "eq"],
  "==": ["eq", "eq"],
  "!==": ["ne", "ne"],
  "!=": ["ne", "ne"],
  "<": ["lt", "slt"],
  "<=": ["le", "sle"],
  ">": ["gt", "sgt"],
  ">=": ["ge", "sge"],
};

/** Syntax that stands for what is inside. */
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

export function expression(unit: Unit, scope: Scope, outer: Node): Operand {
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
        [expression(unit, scope, node.left), expression(unit, scope, node.right)],
      );
    case "UnaryExpression":
      return unary(unit, scope, node);
    case "LogicalExpression":
      return truth(unit, scope, node);
    case "ConditionalExpression":
      return conditional(unit, scope, node);
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

function literal(unit: Unit, node: Node): Operand {
  if (typeof node.value === "number" && !Number.isInteger(node.value)) {
    throw fail(unit, node, "CONSTANT", "guest programs have no fractions", "write an integer");
  }
  return fromData(node.value);
}

function readName(unit: Unit, scope: Scope, node: Node): Operand {
  const binding = lookUp(unit, scope, node);
  if (binding.kind === "fixed") return binding.operand;
  const value = unit.builder.read(binding.variable);
  return binding.type === "bool"
    ? { kind: "truth", value }
    : { kind: "int", type: binding.type, value };
}

/** An integer operand as a value with its type; constants get the default one. */
export function integer(unit: Unit, node: Node, operand: Operand): { type: IntType; value: Value } {
  if (operand.kind === "int") return operand;
  if (operand.kind === "const") {
    const type = defaultType(operand.value, operand.big);
    return { type, value: convert(unit, node, operand, type) };
  }
  throw fail(unit, node, "TYPE", `${describe(operand)} is no integer`, "use an integer here");
}

/** What `object.name` or `object[index]` denotes: a field of a struct in memory, or something else. */
export type Place =
  | { kind: "field"; base: Value; offset: number; width: 1 | 2 | 4 | 8 }
  | { kind: "operand"; operand: Operand };

export function place(unit: Unit, scope: Scope, node: Node): Place {
  const object = expression(unit, scope, node.object);
  if (object.kind === "elements" && node.computed) {
    return { kind: "operand", operand: element(unit, scope, node, object) };
  }
  const key = keyOf(unit, scope, node);
  if (object.kind === "view") {
    const field = Object.hasOwn(object.layout.fields, key) ? object.layout.fields[key] : undefined;
    if (field === undefined) throw noField(unit, node, object.layout, key);
    return {
      kind: "field",
      base: object.base,
      offset: object.offset + field.offset,
      width: field.width,
    };
  }
  const table = object.kind === "data" ? object.value : undefined;
  if (typeof table !== "object" || table === null || !Object.hasOwn(table, key)) {
    const hint = "use a struct made by view(), or a table of constants";
    throw fail(unit, node, "NAME", `${describe(object)} has no property ${key}`, hint);
  }
  return { kind: "operand", operand: fromData((table as Record<string, unknown>)[key]) };
}

function noField(unit: Unit, node: Node, layout: Layout, key: string) {
  const hint = `use one of ${Object.keys(layout.fields).join(", ")}`;
  return fail(unit, node, "NAME", `${layout.name} has no field ${key}`, hint);
}

function keyOf(unit: Unit, scope: Scope, node: Node): string {
  if (!node.computed) return node.property.name;
  const key = expression(unit, scope, node.property);
  if (key.kind === "const") return String(key.value);
  if (key.kind === "data" && typeof key.value === "string") return key.value;
  throw fail(unit, node, "CONSTANT", "this index is not a constant", "index arrays of elements()");
}

function element(
  unit: Unit,
  scope: Scope,
  node: Node,
  array: Extract<Operand, { kind: "view" | "elements" }>,
): Operand {
  const { builder } = unit;
  const index = expression(unit, scope, node.property);
  const { layout, offset } = array;
  if (index.kind === "const") {
    const at = offset + Number(index.value) * layout.size;
    return { kind: "view", layout, base: array.base, offset: at };
  }
  const { type, value } = integer(unit, node.property, index);
  if (type.signed) {
    throw fail(unit, node.property, "TYPE", `an index of type ${type.name}`, "write u32(...)");
  }
  builder.at = node.start;
  const bytes = builder.binary("mul", 64, value, builder.constant(BigInt(layout.size)));
  const constant = bytes.op === "const";
  const base = constant ? array.base : builder.binary("add", 64, bytes, array.base);
  return { kind: "view", layout, base, offset: offset + (constant ? Number(bytes.imm) : 0) };
}

function readMember(unit: Unit, scope: Scope, node: Node): Operand {
  const found = place(unit, scope, node);
  if (found.kind === "operand") return found.operand;
  unit.builder.at = node.start;
  const { base, offset, width } = found;
  const type = fieldType(width);
  const value = unit.builder.make("load", type.bits === 64 ? 64 : 32, [base], {
    offset,
    size: width,
  });
  return { kind: "int", type, value };
}

/** Two operands by an arithmetic operator. */
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

/** A comparison or logical expression as a value; one known now is data. */
function truth(unit: Unit, scope: Scope, node: Node): Operand {
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

/** The truth of an expression of constants only, without building anything. */
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

/** The operand where it needs no code: literals, constants, and tables of them. */
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
    throw fail(unit, node, "TYPE", "an order of things that are no integers", "compare integers");
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
    // Where the left side is decided, the right one is never built.
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
  const a = expression(unit, scope, node.left);
  const b = expression(unit, scope, node.right);
  builder.at = node.start;
  if (a.kind === "truth" || b.kind === "truth") return compareTruths(unit, node, a, b);
  const type = meet(unit, node, a, b) ?? U32;
  return {
    op: COMPARISONS[node.operator]![type.signed ? 1 : 0],
    // Unsigned values are zero-extended, and verifiers know more about 64-bit comparisons.
    bits: type.signed && type.bits < 64 ? 32 : 64,
    a: convert(unit, node.left, a, type),
    b: convert(unit, node.right, b, type),
  };
}

function compareTruths(unit: Unit, node: Node, a: Operand, b: Operand): Comparison {
  const [x, y] = [a, b].map((operand) => {
    if (operand.kind === "truth") return operand.value;
    if (operand.kind === "data") return unit.builder.constant(operand.value ? 1n : 0n);
    throw fail(unit, node, "TYPE", `boolean and ${describe(operand)} do not mix`, "write u32(...)");
  }) as [Value, Value];
  return { op: COMPARISONS[node.operator]![0], bits: 64, a: x, b: y };
}

function conditional(unit: Unit, scope: Scope, node: Node): Operand {
  const { builder } = unit;
  const fixed = constantTruth(unit, scope, node.test);
  if (fixed !== undefined) return expression(unit, scope, fixed ? node.consequent : node.alternate);
  const [yes, no] = [builder.newBlock(), builder.newBlock()];
  condition(unit, scope, node.test, yes, no);
  const results = [yes, no].flatMap((block, i) => {
    builder.enter(block);
    if (builder.block === undefined) return [];
    const operand = expression(unit, scope, i === 0 ? node.consequent : node.alternate);
    return builder.block === undefined ? [] : [{ from: builder.block, operand }];
  });
  const [only] = results;
  if (results.length === 1) {
    builder.block = only!.from;
    return only!.operand;
  }
  return join(unit, node, results, undefined);
}

/** Where several paths meet, each with its own result: jumps there from all of them, and picks. */
export function join(
  unit: Unit,
  node: Node,
  results: readonly { from: Block; operand: Operand }[],
  wanted: IntType | "bool" | undefined,
  to: Block = unit.builder.newBlock(),
): Operand {
  const { builder } = unit;
  const [only] = results;
  if (only === undefined) return { kind: "void" };
  const operands = results.map((r) => r.operand);
  const boolean = operands.some(
    (o) => o.kind === "truth" || (o.kind === "data" && typeof o.value === "boolean"),
  );
  const type = boolean || wanted === "bool" ? undefined : (wanted ?? common(unit, node, operands));
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

/** A boolean operand as 0 or 1. */
export function truthValue(unit: Unit, node: Node, operand: Operand): Value {
  if (operand.kind === "truth") return operand.value;
  if (operand.kind === "data" && typeof operand.value === "boolean") {
    return unit.builder.constant(operand.value ? 1n : 0n);
  }
  const hint = "compare it, for example with !== 0";
  throw fail(unit, node, "TYPE", `${describe(operand)} is no boolean`, hint);
}

function assign(unit: Unit, scope: Scope, node: Node): Operand {
  const target = unwrap(node.left);
  const operator: string = node.operator.slice(0, -1);
  const compute = (old: () => Operand): Operand =>
    operator === ""
      ? expression(unit, scope, node.right)
      : binary(
          unit,
          node,
          operator,
          [target, node.right],
          [old(), expression(unit, scope, node.right)],
        );
  return writeTo(unit, scope, node, target, compute, node.right);
}

function update(unit: Unit, scope: Scope, node: Node): Operand {
  const target = unwrap(node.argument);
  let before: Operand = { kind: "void" };
  const after = writeTo(unit, scope, node, target, (old) => {
    before = old();
    const { type } = integer(unit, node, before);
    const one: Operand = { kind: "const", value: 1n, big: type.bits === 64 };
    return binary(unit, node, node.operator[0], [target, target], [before, one]);
  });
  return node.prefix ? after : before;
}

/** Computes a new value from the old one, where that is asked for, and stores it. */
function writeTo(
  unit: Unit,
  scope: Scope,
  node: Node,
  target: Node,
  compute: (old: () => Operand) => Operand,
  from: Node = node,
): Operand {
  const { builder } = unit;
  if (target.type === "MemberExpression") {
    const found = place(unit, scope, target);
    if (found.kind === "field") {
      const { base, offset, width } = found;
      const type = fieldType(width);
      const bits = type.bits === 64 ? 64 : 32;
      const operand = compute(() => ({
        kind: "int",
        type,
        value: builder.make("load", bits, [base], { offset, size: width }),
      }));
      const value = convert(unit, from, operand, type);
      builder.at = node.start;
      builder.make("store", bits, [base, value], { offset, size: width });
      return { kind: "int", type, value };
    }
  }
  const binding = target.type === "Identifier" ? lookUp(unit, scope, target) : undefined;
  if (binding?.kind !== "variable") {
    const hint = "assign to a local declared with let, or to a field of a struct";
    throw fail(unit, node, "UNSUPPORTED", "this cannot be assigned to", hint);
  }
  const operand = compute(() => readName(unit, scope, target));
  const { type, variable } = binding;
  const value =
    type === "bool" ? truthValue(unit, from, operand) : convert(unit, from, operand, type);
  builder.write(variable, value);
  return type === "bool" ? { kind: "truth", value } : { kind: "int", type, value };
}

/** `u16(x)` and its like. */
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

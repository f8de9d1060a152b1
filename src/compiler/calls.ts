/** Calls of functions, which are inlined unless marked otherwise, and of intrinsics. */
import { convert } from "./convert.ts";
import { expression, join, truthValue } from "./expressions.ts";
import { INTRINSICS } from "./intrinsics.ts";
import {
  type Binding,
  checkFunction,
  describe,
  type Frame,
  fail,
  type Operand,
  Scope,
  type Unit,
  within,
} from "./operands.ts";
import { callOutOfLine, isOutOfLine } from "./out-of-line.ts";
import type { Node } from "./parse.ts";
import { statements } from "./statements.ts";
import { INT_TYPES, type IntType, isIntName } from "./types.ts";

/** Limit of nested calls. Deeper nesting is treated as recursion. */
const MAX_DEPTH = 32;

export type Callee = Extract<Operand, { kind: "function" }>;

export function callExpression(unit: Unit, scope: Scope, node: Node): Operand {
  const callee = expression(unit, scope, node.callee);
  if (callee.kind === "intrinsic") return INTRINSICS[callee.name]!(unit, scope, node);
  if (callee.kind === "function") {
    const { params } = callee.node;
    within(unit, callee.source, () => checkFunction(unit, callee.node));
    if (node.arguments.length !== params.length) {
      const reason = `${callee.name} takes ${params.length} arguments, not ${node.arguments.length}`;
      throw fail(unit, node, "TYPE", reason, "pass all of them");
    }
    const call = isOutOfLine(callee) ? callOutOfLine : inline;
    return call(unit, scope, node, callee);
  }
  const hint = "call a function, or an intrinsic of the language";
  throw fail(unit, node, "UNSUPPORTED", `${describe(callee)} cannot be called`, hint);
}

/** Returns the type that an annotation names; undefined for "number" or a struct. */
export function annotated(
  unit: Unit,
  annotation: Node | null | undefined,
): IntType | "bool" | undefined {
  const type: Node | undefined = annotation?.typeAnnotation;
  if (type === undefined) return undefined;
  if (type.type === "TSBooleanKeyword") return "bool";
  if (type.type === "TSTypeReference" && isIntName(type.typeName?.name)) {
    return INT_TYPES[type.typeName.name as keyof typeof INT_TYPES];
  }
  if (type.type === "TSAnyKeyword") {
    throw fail(unit, type, "TYPE", "guest programs have no any", "name the type: u8 to i64");
  }
  return undefined;
}

function inline(unit: Unit, outer: Scope, node: Node, callee: Callee): Operand {
  const { node: func, name, source } = callee;
  if (unit.depth >= MAX_DEPTH) {
    const hint = "write a loop: functions are inlined and cannot call themselves";
    throw fail(unit, node, "LIMIT", `${name} is called more than ${MAX_DEPTH} deep`, hint);
  }
  const scope = new Scope();
  for (const [i, param] of (func.params as Node[]).entries()) {
    const argument: Node = node.arguments[i];
    const type = within(unit, source, () => parameterType(unit, param));
    const operand = expression(unit, outer, argument, type === "bool" ? undefined : type);
    scope.declare(param.name, bind(unit, param, type, argument, operand));
  }
  const results: { from: NonNullable<typeof unit.builder.block>; operand: Operand }[] = [];
  const exit = unit.builder.newBlock();
  unit.depth++;
  const frame = within(unit, source, () => {
    const returns = annotated(unit, func.returnType);
    const inlined: Frame = { name, returns, inlined: { exit, results } };
    statements(unit, scope, inlined, func.body.body);
    return inlined;
  });
  unit.depth--;
  return leave(unit, node, frame);
}

/**
 * Binds an argument. A parameter with a width is a variable; any other is an alias of the argument.
 */
function bind(
  unit: Unit,
  param: Node,
  type: IntType | "bool" | undefined,
  argument: Node,
  operand: Operand,
): Binding {
  if (type === undefined) return { kind: "fixed", operand };
  const bits = type !== "bool" && type.bits === 64 ? 64 : 32;
  const variable = { name: param.name, bits } as const;
  const value =
    type === "bool" ? truthValue(unit, argument, operand) : convert(unit, argument, operand, type);
  unit.builder.write(variable, value);
  return { kind: "variable", variable, type };
}

/** Returns the type of a parameter of the current file, if it is annotated. */
export function parameterType(unit: Unit, param: Node): IntType | "bool" | undefined {
  if (param.type === "Identifier") return annotated(unit, param.typeAnnotation);
  throw fail(unit, param, "UNSUPPORTED", "a parameter with a pattern or default", "write a name");
}

function leave(unit: Unit, node: Node, frame: Frame): Operand {
  const { builder } = unit;
  const { exit, results } = frame.inlined!;
  if (builder.block !== undefined) results.push({ from: builder.block, operand: { kind: "void" } });
  const values = results.filter((r) => r.operand.kind !== "void");
  if (values.length === 0) {
    for (const { from } of results) {
      builder.block = from;
      builder.jump(exit);
    }
    builder.enter(exit);
    return { kind: "void" };
  }
  if (values.length < results.length) {
    throw fail(unit, node, "TYPE", `${frame.name} has a path that returns no value`, "return one");
  }
  const [only] = results;
  if (results.length === 1 && frame.returns === undefined) {
    builder.block = only!.from;
    return only!.operand;
  }
  return join(unit, node, results, frame.returns, exit);
}

/** Calls: functions of the file, which are inlined, and intrinsics. */
import { convert } from "./convert.ts";
import { expression, join, truthValue } from "./expressions.ts";
import { INTRINSICS } from "./intrinsics.ts";
import {
  type Binding,
  describe,
  type Frame,
  fail,
  type Operand,
  Scope,
  type Unit,
} from "./operands.ts";
import type { Node } from "./parse.ts";
import { statements } from "./statements.ts";
import { INT_TYPES, type IntType, isIntName } from "./types.ts";

/** Functions nested in each other; more is taken for recursion. */
const MAX_DEPTH = 32;

export function callExpression(unit: Unit, scope: Scope, node: Node): Operand {
  const callee = expression(unit, scope, node.callee);
  if (callee.kind === "intrinsic") return INTRINSICS[callee.name]!(unit, scope, node);
  if (callee.kind === "function") return inline(unit, scope, node, callee.node, callee.name);
  const hint = "call a function of this file, or an intrinsic of the language";
  throw fail(unit, node, "UNSUPPORTED", `${describe(callee)} cannot be called`, hint);
}

/** The type that an annotation names; undefined where it says no more than "number" or a struct. */
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

function inline(unit: Unit, outer: Scope, node: Node, func: Node, name: string): Operand {
  if (unit.depth >= MAX_DEPTH) {
    const hint = "write a loop: functions are inlined and cannot call themselves";
    throw fail(unit, node, "LIMIT", `${name} is called more than ${MAX_DEPTH} deep`, hint);
  }
  if (node.arguments.length !== func.params.length) {
    const reason = `${name} takes ${func.params.length} arguments, not ${node.arguments.length}`;
    throw fail(unit, node, "TYPE", reason, "pass all of them");
  }
  const scope = new Scope();
  for (const [i, param] of (func.params as Node[]).entries()) {
    scope.declare(param.name, bind(unit, param, expression(unit, outer, node.arguments[i])));
  }
  const results: { from: NonNullable<typeof unit.builder.block>; operand: Operand }[] = [];
  const exit = unit.builder.newBlock();
  const returns = annotated(unit, func.returnType);
  const frame: Frame = { name, returns, inlined: { exit, results } };
  unit.depth++;
  try {
    statements(unit, scope, frame, func.body.body);
  } finally {
    unit.depth--;
  }
  return leave(unit, node, frame);
}

/** A parameter with a width is a variable; any other stands for what was passed. */
function bind(unit: Unit, param: Node, operand: Operand): Binding {
  if (param.type !== "Identifier") {
    throw fail(unit, param, "UNSUPPORTED", "a parameter that is no plain name", "write a name");
  }
  const type = annotated(unit, param.typeAnnotation);
  if (type === undefined) return { kind: "fixed", operand };
  const bits = type !== "bool" && type.bits === 64 ? 64 : 32;
  const variable = { name: param.name, bits } as const;
  const value =
    type === "bool" ? truthValue(unit, param, operand) : convert(unit, param, operand, type);
  unit.builder.write(variable, value);
  return { kind: "variable", variable, type };
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
    throw fail(unit, node, "TYPE", `${frame.name} does not always return a value`, "return one");
  }
  const [only] = results;
  if (results.length === 1 && frame.returns === undefined) {
    builder.block = only!.from;
    return only!.operand;
  }
  return join(unit, node, results, frame.returns, exit);
}

/**
 * Calls out of line. A function whose body begins with the directive "use noinline" is compiled
 * once per program and called: its arguments, integers and the context, are passed in R1 to R5, its
 * result in R0 (RFC 9669, section 4.3.2).
 */
import { Builder } from "./build.ts";
import { annotated, type Callee, parameterType } from "./calls.ts";
import { convert } from "./convert.ts";
import { expression, truthValue } from "./expressions.ts";
import type { Func, Value } from "./ir.ts";
import { describe, type Frame, fail, type Operand, Scope, type Unit, within } from "./operands.ts";
import type { Node } from "./parse.ts";
import { statements } from "./statements.ts";
import { type IntType, registerBits } from "./types.ts";

export const NOINLINE = "use noinline";
const MAX_ARGUMENTS = 5;

/** Type of an argument in a register. */
type Passed = IntType | "bool" | "context";

export function isOutOfLine({ node }: Callee): boolean {
  return node.body.body.some((statement: Node) => statement.directive === NOINLINE);
}

export function callOutOfLine(unit: Unit, scope: Scope, node: Node, callee: Callee): Operand {
  const { builder } = unit;
  const { params, returns } = within(unit, callee.source, () => signatureOf(unit, callee));
  const args = (node.arguments as Node[]).map((argument, i) =>
    pass(unit, argument, expression(unit, scope, argument, integerType(params[i]!)), params[i]!),
  );
  const target = functionOf(unit, node, callee, params, returns);
  builder.at = node.start;
  const bits = returns === undefined || returns === "bool" ? 32 : registerBits(returns);
  const value = builder.make("call", bits, args, { callee: target });
  if (returns === undefined) return { kind: "void" };
  return returns === "bool" ? { kind: "truth", value } : { kind: "int", type: returns, value };
}

const integerType = (type: Passed): IntType | undefined =>
  type === "bool" || type === "context" ? undefined : type;

function signatureOf(unit: Unit, { node, name }: Callee) {
  const { params, returnType } = node;
  if (params.length > MAX_ARGUMENTS) {
    const reason = `${name} takes ${params.length} arguments: there are ${MAX_ARGUMENTS} registers`;
    throw fail(unit, node, "LIMIT", reason, "pass fewer, or let it be inlined");
  }
  const returns = annotated(unit, returnType);
  if (returns === undefined && returnType?.typeAnnotation.type !== "TSVoidKeyword") {
    const hint = "annotate its result: u8 to i64, boolean or void";
    throw fail(unit, returnType ?? node, "TYPE", `${name} has no known result type`, hint);
  }
  return { params: (params as Node[]).map((param) => passed(unit, param)), returns };
}

function passed(unit: Unit, param: Node): Passed {
  const type = parameterType(unit, param);
  if (type !== undefined) return type;
  if (param.typeAnnotation?.typeAnnotation.typeName?.name === "Context") return "context";
  const hint = "annotate it as u8 to i64, boolean or Context, or let the function be inlined";
  throw fail(unit, param, "TYPE", "a parameter that does not fit a register", hint);
}

function pass(unit: Unit, node: Node, operand: Operand, as: Passed): Value {
  if (as === "bool") return truthValue(unit, node, operand);
  if (as !== "context") return convert(unit, node, operand, as);
  if (operand.kind === "context") return operand.value;
  const reason = `${describe(operand)} instead of the context`;
  throw fail(unit, node, "TYPE", reason, "pass the program's parameter");
}

/** Returns the called function, and lowers it at its first call. */
function functionOf(
  unit: Unit,
  call: Node,
  callee: Callee,
  params: readonly Passed[],
  returns: IntType | "bool" | undefined,
): Func {
  const { made, open } = unit.outOfLine;
  const { node, name, source } = callee;
  const known = made.get(node);
  if (known !== undefined) return known;
  if (open.includes(node)) {
    const hint = "write a loop: guest programs have no recursion";
    throw fail(unit, call, "UNSUPPORTED", `${name} calls itself`, hint);
  }
  const builder = new Builder(name, source.start + node.start);
  const inner: Unit = { ...unit, source, builder, depth: 0 };
  builder.origin = source.start;
  open.push(node);
  lowerBody(inner, callee, params, returns);
  open.pop();
  made.set(node, builder.func);
  return builder.func;
}

function lowerBody(
  unit: Unit,
  { node, name }: Callee,
  params: readonly Passed[],
  returns: IntType | "bool" | undefined,
): void {
  const { builder } = unit;
  const scope = new Scope();
  builder.at = node.start;
  for (const [i, param] of (node.params as Node[]).entries())
    receive(unit, scope, param, params[i]!, i);
  const frame: Frame = { name, returns };
  statements(unit, scope, frame, node.body.body);
  if (builder.block !== undefined && returns !== undefined) {
    throw fail(unit, node, "TYPE", `${name} has a path that returns no value`, "return one");
  }
  builder.at = node.end - 1;
  builder.return(builder.constant(0n));
}

function receive(unit: Unit, scope: Scope, param: Node, type: Passed, index: number): void {
  const { builder } = unit;
  const imm = BigInt(index);
  if (type === "context") {
    const value = builder.make("context", 64, [], { imm });
    scope.declare(param.name, { kind: "fixed", operand: { kind: "context", value } });
    return;
  }
  const bits = type === "bool" ? 32 : registerBits(type);
  const variable = { name: param.name, bits };
  builder.write(variable, builder.make("param", bits, [], { imm }));
  scope.declare(param.name, { kind: "variable", variable, type });
}

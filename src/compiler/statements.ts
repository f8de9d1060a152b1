/** Lowers statements of the source to blocks. */
import { annotated } from "./calls.ts";
import { condition } from "./conditions.ts";
import { convert } from "./convert.ts";
import { expression, integer, truthValue } from "./expressions.ts";
import type { Block } from "./ir.ts";
import { describe, type Frame, fail, type Operand, Scope, type Unit } from "./operands.ts";
import { NOINLINE } from "./out-of-line.ts";
import type { Node } from "./parse.ts";
import { I32, type IntType } from "./types.ts";

/** Targets of `break` and `continue`. */
interface Targets {
  readonly breakTo?: Block;
  readonly continueTo?: Block;
}

export function statements(
  unit: Unit,
  scope: Scope,
  frame: Frame,
  list: readonly Node[],
  targets: Targets = {},
): void {
  for (const node of list) {
    // Code after a return, break or continue is dead.
    if (unit.builder.block === undefined) return;
    statement(unit, scope, frame, node, targets);
  }
}

function statement(unit: Unit, scope: Scope, frame: Frame, node: Node, targets: Targets): void {
  const { builder } = unit;
  builder.at = node.start;
  switch (node.type) {
    case "VariableDeclaration":
      for (const declaration of node.declarations) declare(unit, scope, node, declaration);
      return;
    case "ExpressionStatement":
      if (typeof node.directive === "string") return checkDirective(unit, node);
      expression(unit, scope, node.expression);
      return;
    case "BlockStatement":
      return statements(unit, new Scope(scope), frame, node.body, targets);
    case "EmptyStatement":
      return;
    case "IfStatement":
      return ifStatement(unit, scope, frame, node, targets);
    case "ForStatement":
    case "WhileStatement":
    case "DoWhileStatement":
      return loop(unit, new Scope(scope), frame, node);
    case "SwitchStatement":
      return switchStatement(unit, new Scope(scope), frame, node, targets);
    case "ReturnStatement":
      return returnStatement(unit, scope, frame, node.argument);
    case "BreakStatement":
    case "ContinueStatement":
      return leave(unit, node, targets);
    default: {
      const hint = "use let, const, if, switch, for, while, return, and calls";
      throw fail(unit, node, "UNSUPPORTED", `guest programs have no ${node.type}`, hint);
    }
  }
}

function checkDirective(unit: Unit, node: Node): void {
  if (node.directive === NOINLINE) return;
  const reason = `unknown directive ${node.directive}`;
  throw fail(unit, node, "UNSUPPORTED", reason, `write "${NOINLINE}", or nothing`);
}

function declare(unit: Unit, scope: Scope, list: Node, node: Node): void {
  if (node.id.type !== "Identifier") {
    const hint = "declare one name at a time";
    throw fail(unit, node, "UNSUPPORTED", "a pattern instead of a name", hint);
  }
  if (list.kind === "var") throw fail(unit, list, "UNSUPPORTED", "var", "write let or const");
  const name: string = node.id.name;
  if (!node.init) {
    throw fail(unit, node, "UNSUPPORTED", `${name} has no value`, `write let ${name} = 0`);
  }
  const annotation = annotated(unit, node.id.typeAnnotation);
  const operand = expression(
    unit,
    scope,
    node.init,
    annotation === "bool" ? undefined : annotation,
  );
  if (list.kind === "const" && annotation === undefined) {
    if (operand.kind === "void")
      throw fail(unit, node, "TYPE", "the expression has no value", "return one");
    scope.declare(name, { kind: "fixed", operand });
    return;
  }
  const boolean =
    annotation === "bool" ||
    operand.kind === "truth" ||
    (operand.kind === "data" && typeof operand.value === "boolean");
  if (!boolean && operand.kind !== "int" && operand.kind !== "const") {
    const hint = `write const ${name}`;
    throw fail(unit, node, "TYPE", `${describe(operand)} in a variable`, hint);
  }
  const type = boolean
    ? "bool"
    : ((annotation as IntType | undefined) ?? integer(unit, node.init, operand).type);
  const bits = type !== "bool" && type.bits === 64 ? 64 : 32;
  const variable = { name, bits } as const;
  const value =
    type === "bool"
      ? truthValue(unit, node.init, operand)
      : convert(unit, node.init, operand, type);
  unit.builder.write(variable, value);
  scope.declare(name, { kind: "variable", variable, type });
}

function ifStatement(unit: Unit, scope: Scope, frame: Frame, node: Node, targets: Targets): void {
  const { builder } = unit;
  const yes = builder.newBlock();
  const join = builder.newBlock();
  const no = node.alternate ? builder.newBlock() : join;
  condition(unit, scope, node.test, yes, no);
  builder.enter(yes);
  if (builder.block) statement(unit, new Scope(scope), frame, node.consequent, targets);
  builder.jump(join);
  if (node.alternate) {
    builder.enter(no);
    if (builder.block) statement(unit, new Scope(scope), frame, node.alternate, targets);
    builder.jump(join);
  }
  builder.enter(join);
}

/**
 * Loops are inverted: the condition is tested once before, and then at the end of each iteration.
 */
function loop(unit: Unit, scope: Scope, frame: Frame, node: Node): void {
  const { builder } = unit;
  if (node.type === "ForStatement" && node.init) {
    if (node.init.type === "VariableDeclaration") {
      statement(unit, scope, frame, node.init, {});
    } else expression(unit, scope, node.init);
  }
  const [body, next, exit] = [builder.newBlock(), builder.newBlock(), builder.newBlock()];
  const test = (): void => {
    if (node.test) condition(unit, scope, node.test, body, exit);
    else builder.jump(body);
  };
  if (node.type === "DoWhileStatement") builder.jump(body);
  else test();
  builder.enterUnsealed(body);
  if (builder.block) {
    statement(unit, new Scope(scope), frame, node.body, { breakTo: exit, continueTo: next });
    builder.jump(next);
    builder.enter(next);
    if (builder.block && node.update) expression(unit, scope, node.update);
    if (builder.block) test();
  }
  builder.seal(body);
  builder.enter(exit);
}

function switchStatement(
  unit: Unit,
  scope: Scope,
  frame: Frame,
  node: Node,
  targets: Targets,
): void {
  const { builder } = unit;
  const on = expression(unit, scope, node.discriminant);
  const cases = node.cases as Node[];
  const bodies = cases.map(() => builder.newBlock());
  const exit = builder.newBlock();
  const otherwise = bodies[cases.findIndex((c) => !c.test)] ?? exit;
  for (const [i, each] of cases.entries()) {
    if (each.test) testCase(unit, scope, node, on, each.test, bodies[i]!);
  }
  builder.jump(otherwise);
  for (const [i, each] of cases.entries()) {
    const body = bodies[i]!;
    // Falls through from the previous case.
    builder.jump(body);
    builder.enter(body);
    statements(unit, scope, frame, each.consequent, { ...targets, breakTo: exit });
  }
  builder.jump(exit);
  builder.enter(exit);
}

function testCase(
  unit: Unit,
  scope: Scope,
  node: Node,
  on: Operand,
  test: Node,
  body: Block,
): void {
  const { builder } = unit;
  const value = expression(unit, scope, test);
  if ((on.kind === "const" || on.kind === "data") && value.kind === on.kind) {
    if (value.value === on.value) builder.jump(body);
    return;
  }
  const { type, value: left } = integer(unit, node.discriminant, on);
  const next = builder.newBlock();
  const right = convert(unit, test, value, type);
  const bits = type.signed && type.bits < 64 ? 32 : 64;
  builder.branch({ op: "eq", bits, a: left, b: right }, body, next);
  builder.enter(next);
}

function returnStatement(unit: Unit, scope: Scope, frame: Frame, argument: Node | null): void {
  const { builder } = unit;
  const inner =
    argument && argument.type === "ParenthesizedExpression" ? argument.expression : argument;
  if (inner?.type === "ConditionalExpression") {
    const [yes, no] = [builder.newBlock(), builder.newBlock()];
    condition(unit, scope, inner.test, yes, no);
    builder.enter(yes);
    if (builder.block) returnStatement(unit, scope, frame, inner.consequent);
    builder.enter(no);
    if (builder.block) returnStatement(unit, scope, frame, inner.alternate);
    return;
  }
  const operand: Operand = inner ? expression(unit, scope, inner) : { kind: "void" };
  if (frame.inlined !== undefined) {
    if (builder.block === undefined) return;
    frame.inlined.results.push({
      from: builder.block,
      operand: returned(unit, frame, inner, operand),
    });
    builder.block = undefined;
    return;
  }
  builder.return(result(unit, frame, inner, operand));
}

/** Returns the result of an inlined function in its annotated type, or refuses it here. */
function returned(unit: Unit, { returns }: Frame, node: Node | null, operand: Operand): Operand {
  if (node === null || operand.kind === "void" || returns === undefined) return operand;
  return returns === "bool"
    ? { kind: "truth", value: truthValue(unit, node, operand) }
    : { kind: "int", type: returns, value: convert(unit, node, operand, returns) };
}

/** Returns a program's result. The driver reads the low 32 bits as a signed number. */
function result(unit: Unit, frame: Frame, node: Node | null, operand: Operand) {
  const { builder } = unit;
  if (node === null || operand.kind === "void") return builder.constant(0n);
  const { returns } = frame;
  if (returns === "bool" || operand.kind === "truth") return truthValue(unit, node, operand);
  if (operand.kind === "const") return convert(unit, node, operand, returns ?? I32);
  return returns === undefined
    ? integer(unit, node, operand).value
    : convert(unit, node, operand, returns);
}

function leave(unit: Unit, node: Node, targets: Targets): void {
  const to = node.type === "BreakStatement" ? targets.breakTo : targets.continueTo;
  if (node.label || to === undefined) {
    const hint = "break and continue leave the innermost loop or switch only";
    throw fail(unit, node, "UNSUPPORTED", "a jump to a label", hint);
  }
  unit.builder.jump(to);
}

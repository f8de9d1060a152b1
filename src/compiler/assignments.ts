/** Assignments, to variables and to fields. */
import { convert } from "./convert.ts";
import { binary, expression, integer, readName, truthValue, unwrap } from "./expressions.ts";
import { lookUp } from "./names.ts";
import { fail, type Operand, type Scope, type Unit } from "./operands.ts";
import type { Node } from "./parse.ts";
import { place } from "./places.ts";
import { fieldType, type IntType } from "./types.ts";

export function assign(unit: Unit, scope: Scope, node: Node): Operand {
  const target = unwrap(node.left);
  const operator: string = node.operator.slice(0, -1);
  const compute = (old: () => Operand, wanted: IntType | undefined): Operand =>
    operator === ""
      ? expression(unit, scope, node.right, wanted)
      : binary(
          unit,
          node,
          operator,
          [target, node.right],
          [old(), expression(unit, scope, node.right, wanted)],
        );
  return writeTo(unit, scope, node, target, compute, node.right);
}

export function update(unit: Unit, scope: Scope, node: Node): Operand {
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

/** Computes a new value, from the old one for a compound assignment, and stores it. */
function writeTo(
  unit: Unit,
  scope: Scope,
  node: Node,
  target: Node,
  compute: (old: () => Operand, wanted: IntType | undefined) => Operand,
  from: Node = node,
): Operand {
  const { builder } = unit;
  if (target.type === "MemberExpression") {
    const found = place(unit, scope, target);
    if (found.kind === "field") {
      const { base, offset, width } = found;
      const type = fieldType(width);
      const bits = type.bits === 64 ? 64 : 32;
      const load = (): Operand => {
        const value = builder.make("load", bits, [base], { offset, size: width });
        return { kind: "int", type, value };
      };
      const operand = compute(load, type);
      const value = convert(unit, from, operand, type);
      builder.at = node.start;
      builder.make("store", bits, [base, value], { offset, size: width });
      return { kind: "int", type, value };
    }
  }
  const binding = target.type === "Identifier" ? lookUp(unit, scope, target) : undefined;
  if (binding?.kind !== "variable") {
    const hint = "assign to a local declared with let, or to a field of a struct";
    throw fail(unit, node, "UNSUPPORTED", "not an assignment target", hint);
  }
  const { type, variable } = binding;
  const operand = compute(() => readName(unit, scope, target), type === "bool" ? undefined : type);
  const value =
    type === "bool" ? truthValue(unit, from, operand) : convert(unit, from, operand, type);
  builder.write(variable, value);
  return type === "bool" ? { kind: "truth", value } : { kind: "int", type, value };
}

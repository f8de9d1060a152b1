/** Resolves `object.name` and `object[index]`: fields in memory, structs, entries of tables. */
import { expression, integer } from "./expressions.ts";
import type { Value } from "./ir.ts";
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
import { fieldType } from "./types.ts";

/**
 * What `object.name` or `object[index]` denotes: a field of a struct in memory, or another operand.
 */
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
  throw fail(unit, node, "CONSTANT", "the index is not a constant", "index arrays of elements()");
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

export function readMember(unit: Unit, scope: Scope, node: Node): Operand {
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

/** The language's additions to TypeScript, by name (declared for editors in `language.ts`). */
import type { AtomicOp } from "../ebpf/opcode.ts";
import { convert, meet } from "./convert.ts";
import { castTo, expression, integer, unwrap } from "./expressions.ts";
import type { Value } from "./ir.ts";
import {
  describe,
  fail,
  isLayout,
  type Layout,
  type Operand,
  type Scope,
  type Unit,
} from "./operands.ts";
import type { Node } from "./parse.ts";
import { place } from "./places.ts";
import { fieldType, I32, INT_TYPES, type IntName } from "./types.ts";

type Intrinsic = (unit: Unit, scope: Scope, node: Node) => Operand;

/** Stack of a program in bytes. */
const STACK_BYTES = 512;
const MAX_HELPER_ARGUMENTS = 5;

function argumentsOf(unit: Unit, node: Node, count: number): Node[] {
  if (node.arguments.length === count) return node.arguments;
  const reason = `${node.arguments.length} arguments where ${count} are wanted`;
  throw fail(unit, node, "TYPE", reason, `pass ${count}`);
}

const toType =
  (name: IntName): Intrinsic =>
  (unit, scope, node) => {
    const [arg] = argumentsOf(unit, node, 1);
    return castTo(unit, arg!, expression(unit, scope, arg!), INT_TYPES[name]);
  };

function layoutOf(unit: Unit, scope: Scope, node: Node): Layout {
  const operand = expression(unit, scope, node);
  if (operand.kind === "data" && isLayout(operand.value)) return operand.value;
  const hint = "pass a struct declared with struct()";
  throw fail(unit, node, "TYPE", `${describe(operand)} is not a layout`, hint);
}

function constantOf(unit: Unit, scope: Scope, node: Node): bigint {
  const operand = expression(unit, scope, node);
  if (operand.kind === "const") return operand.value;
  throw fail(unit, node, "CONSTANT", "not a constant", "compute it from constants");
}

const inContext =
  (kind: "view" | "elements"): Intrinsic =>
  (unit, scope, node) => {
    const [layoutNode, contextNode, offsetNode] = argumentsOf(unit, node, 3) as [Node, Node, Node];
    const layout = layoutOf(unit, scope, layoutNode);
    const context = expression(unit, scope, contextNode);
    if (context.kind !== "context") {
      const reason = `${describe(context)} is not the context`;
      throw fail(unit, contextNode, "TYPE", reason, "pass the program's parameter");
    }
    const offset = Number(constantOf(unit, scope, offsetNode));
    return { kind, layout, base: context.value, offset };
  };

const stack: Intrinsic = (unit, scope, node) => {
  const [layoutNode] = argumentsOf(unit, node, 1) as [Node];
  const layout = layoutOf(unit, scope, layoutNode);
  const { func } = unit.builder;
  func.stack += Math.ceil(layout.size / 8) * 8;
  if (func.stack > STACK_BYTES) {
    const reason = `the stack of ${STACK_BYTES} bytes is exhausted`;
    throw fail(unit, node, "LIMIT", reason, "use fewer or smaller structs");
  }
  const base = unit.builder.make("stack", 64, [], { offset: -func.stack });
  return { kind: "view", layout, base, offset: 0 };
};

/** Returns the first argument of an atomic: a field, as in a read. */
function fieldOf(unit: Unit, scope: Scope, outer: Node) {
  const node = unwrap(outer);
  const found = node.type === "MemberExpression" ? place(unit, scope, node) : undefined;
  if (found?.kind !== "field") {
    throw fail(unit, node, "TYPE", "not a field of a struct", "write it as ring.prod");
  }
  if (found.width < 4) {
    const hint = "declare a u32 field over it";
    throw fail(unit, node, "TYPE", `an atomic on ${found.width * 8} bits`, hint);
  }
  return found;
}

const atomic =
  (op: AtomicOp): Intrinsic =>
  (unit, scope, node) => {
    const [target, ...rest] = argumentsOf(unit, node, op === "cmpxchg" ? 3 : 2) as [Node, Node];
    const { base, offset, width } = fieldOf(unit, scope, target);
    const type = fieldType(width);
    const values = rest.map((arg) => convert(unit, arg, expression(unit, scope, arg), type));
    unit.builder.at = node.start;
    const args = [base, values.at(-1)!, ...values.slice(0, -1)];
    const bits = type.bits === 64 ? 64 : 32;
    const value = unit.builder.make("atomic", bits, args, { offset, size: width, atomic: op });
    return { kind: "int", type, value };
  };

/** Returns the address of a struct, for helpers. */
function addressOf(unit: Unit, operand: Extract<Operand, { kind: "view" | "elements" }>): Value {
  const { builder } = unit;
  return builder.binary("add", 64, operand.base, builder.constant(BigInt(operand.offset)));
}

const call: Intrinsic = (unit, scope, node) => {
  const [number, ...rest] = node.arguments as Node[];
  if (number === undefined || rest.length > MAX_HELPER_ARGUMENTS) {
    const hint = `write call(HELPERS.name, ...), with up to ${MAX_HELPER_ARGUMENTS} arguments`;
    throw fail(unit, node, "TYPE", "not a helper, or too many arguments", hint);
  }
  const imm = constantOf(unit, scope, number);
  const args = rest.map((arg) => {
    const operand = expression(unit, scope, arg);
    if (operand.kind === "context") return operand.value;
    if (operand.kind === "view" || operand.kind === "elements") return addressOf(unit, operand);
    return integer(unit, arg, operand).value;
  });
  unit.builder.at = node.start;
  const result = unit.builder.make("call", 64, args, { imm });
  return { kind: "int", type: I32, value: unit.builder.make("trunc", 32, [result]) };
};

const after: Intrinsic = (unit, scope, node) => {
  const [valueNode, loadedNode] = argumentsOf(unit, node, 2) as [Node, Node];
  const value = expression(unit, scope, valueNode);
  const loaded = expression(unit, scope, loadedNode);
  const type = meet(unit, node, value, loaded);
  if (type === undefined) {
    throw fail(unit, node, "TYPE", "two constants have no order", "pass what was loaded");
  }
  const { builder } = unit;
  const a = convert(unit, valueNode, value, type);
  const b = convert(unit, loadedNode, loaded, type);
  const bits = type.bits === 64 ? 64 : 32;
  const mixed = builder.binary("xor", bits, a, b);
  return { kind: "int", type, value: builder.make("depend", bits, [mixed, b]) };
};

const swap =
  (name: IntName): Intrinsic =>
  (unit, scope, node) => {
    const [arg] = argumentsOf(unit, node, 1) as [Node];
    const type = INT_TYPES[name];
    const value = convert(unit, arg, expression(unit, scope, arg), type);
    const size = (type.bits / 8) as 2 | 4 | 8;
    return { kind: "int", type, value: unit.builder.make("swap", 64, [value], { size }) };
  };

export const INTRINSICS: Readonly<Record<string, Intrinsic>> = {
  u8: toType("u8"),
  u16: toType("u16"),
  u32: toType("u32"),
  u64: toType("u64"),
  i8: toType("i8"),
  i16: toType("i16"),
  i32: toType("i32"),
  i64: toType("i64"),
  view: inContext("view"),
  elements: inContext("elements"),
  stack,
  fetchAdd: atomic("fetch_add"),
  fetchOr: atomic("fetch_or"),
  fetchAnd: atomic("fetch_and"),
  fetchXor: atomic("fetch_xor"),
  exchange: atomic("xchg"),
  compareExchange: atomic("cmpxchg"),
  call,
  after,
  swap16: swap("u16"),
  swap32: swap("u32"),
  swap64: swap("u64"),
};

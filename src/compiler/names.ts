/** Resolves free names: constants and functions of the file, intrinsics, and given values. */
import { expression } from "./expressions.ts";
import { INTRINSICS } from "./intrinsics.ts";
import {
  type Binding,
  fail,
  fromData,
  type Operand,
  Scope,
  type Unit,
  within,
} from "./operands.ts";
import type { Import, Node, Source } from "./parse.ts";
import { isLanguage, notExported } from "./project.ts";

export function lookUp(unit: Unit, scope: Scope, node: Node): Binding {
  const name: string = node.name;
  const local = scope.find(name);
  if (local !== undefined) return local;
  const operand = free(unit, node, name);
  // Evaluating a constant moved the position back to its line: restore that of its use.
  unit.builder.at = node.start;
  return { kind: "fixed", operand };
}

function free(unit: Unit, node: Node, name: string): Operand {
  const { source, given } = unit;
  const own = declared(unit, source, name);
  if (own !== undefined) return own;
  const imported = source.imports.get(name);
  const found = imported && importedName(unit, imported);
  if (found !== undefined) return found;
  if (Object.hasOwn(given, name)) return fromData(given[name]);
  if (name === "undefined") return { kind: "data", value: undefined };
  throw unknownName(unit, node, name, imported);
}

/** Returns a function or constant of a file. */
function declared(unit: Unit, source: Source, name: string): Operand | undefined {
  const initialiser = source.constants.get(name);
  if (initialiser !== undefined) {
    if (isGivenLayout(unit, name, initialiser)) return fromData(unit.given[name]);
    return within(unit, source, () => moduleConstant(unit, name, initialiser));
  }
  const func = source.functions.get(name);
  return func && { kind: "function", node: func, name, source };
}

/** `const RING = struct(...)`: the result of a call is given, not computed here. */
function isGivenLayout({ given }: Unit, name: string, initialiser: Node): boolean {
  const isObject = Object.hasOwn(given, name) && typeof given[name] === "object";
  return isObject && initialiser.type === "CallExpression";
}

/** Given values come first. The imported files are read only for other names. */
function importedName(unit: Unit, imported: Import): Operand | undefined {
  const { source, given } = unit;
  const { module, name } = imported;
  if (isLanguage(module)) return name in INTRINSICS ? { kind: "intrinsic", name } : undefined;
  if (Object.hasOwn(given, name) && typeof given[name] !== "function") return fromData(given[name]);
  const found = source.project.importOf(source, imported);
  return found && declared(unit, found.source, found.name);
}

/** Replacements for JavaScript's own functions. */
const JAVASCRIPT: Readonly<Record<string, string>> = {
  BigInt: "write u64(...) or i64(...)",
  Number: "write u32(...) or i32(...)",
};

function unknownName(unit: Unit, node: Node, name: string, imported: Import | undefined) {
  const { source } = unit;
  if (source.declared.has(name)) {
    const hint = `pass it in, for example with --define ${name}=1`;
    return fail(unit, node, "NAME", `no value was given for ${name}`, hint);
  }
  if (imported !== undefined) {
    if (source.project.follow(source, imported)) return notExported(source, imported);
    const reason = `the compiler was given no value for ${name} of "${imported.module}"`;
    return fail(unit, node, "NAME", reason, "pass it in, or import it from a .ts file that exists");
  }
  const hint = JAVASCRIPT[name] ?? "declare it in this file, or import a constant or layout";
  return fail(unit, node, "NAME", `${name} is not defined`, hint);
}

function moduleConstant(unit: Unit, name: string, initialiser: Node): Operand {
  const known = unit.constants.get(initialiser);
  if (known !== undefined) return known;
  unit.constants.set(initialiser, { kind: "void" });
  const operand = expression(unit, new Scope(), initialiser);
  if (["const", "data", "function", "intrinsic"].includes(operand.kind)) {
    unit.constants.set(initialiser, operand);
    return operand;
  }
  const hint = "compute it from constants, or move it into the function";
  throw fail(unit, initialiser, "CONSTANT", `${name} is not a compile-time constant`, hint);
}

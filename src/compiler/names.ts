/** What free names mean: constants and functions of the file, intrinsics, and values passed in. */
import { expression } from "./expressions.ts";
import { INTRINSICS } from "./intrinsics.ts";
import { type Binding, fail, fromData, type Operand, Scope, type Unit } from "./operands.ts";
import type { Node } from "./parse.ts";

/** Modules whose exports are the language itself. */
const LANGUAGE = /(^|\/)compiler\/language(\.[jt]s)?$/;

export function lookUp(unit: Unit, scope: Scope, node: Node): Binding {
  const name: string = node.name;
  const local = scope.find(name);
  if (local !== undefined) return local;
  return { kind: "fixed", operand: free(unit, node, name) };
}

function free(unit: Unit, node: Node, name: string): Operand {
  const { source, given } = unit;
  const initialiser = source.constants.get(name);
  if (initialiser !== undefined) return moduleConstant(unit, node, name, initialiser);
  const func = source.functions.get(name);
  if (func !== undefined) return { kind: "function", node: func, name };
  const imported = source.imports.get(name);
  if (imported !== undefined && LANGUAGE.test(imported.module) && imported.name in INTRINSICS) {
    return { kind: "intrinsic", name: imported.name };
  }
  if (imported !== undefined && Object.hasOwn(given, imported.name)) {
    return fromData(given[imported.name]);
  }
  if (Object.hasOwn(given, name)) return fromData(given[name]);
  if (name === "undefined") return { kind: "data", value: undefined };
  throw unknownName(unit, node, name, imported?.module);
}

function unknownName(unit: Unit, node: Node, name: string, module: string | undefined) {
  if (unit.source.declared.has(name)) {
    const hint = `pass it in, for example with --define ${name}=1`;
    return fail(unit, node, "NAME", `no value was given for ${name}`, hint);
  }
  if (module !== undefined) {
    const reason = `${name} of "${module}" is no value that the compiler was given`;
    return fail(unit, node, "NAME", reason, "import constants and layouts only, and pass them in");
  }
  const hint = "declare a constant or function in this file, or import a constant or layout";
  return fail(unit, node, "NAME", `${name} is not defined`, hint);
}

function moduleConstant(unit: Unit, node: Node, name: string, initialiser: Node): Operand {
  const known = unit.constants.get(name);
  if (known !== undefined) return known;
  unit.constants.set(name, { kind: "void" });
  const operand = expression(unit, new Scope(), initialiser);
  if (["const", "data", "function", "intrinsic"].includes(operand.kind)) {
    unit.constants.set(name, operand);
    return operand;
  }
  const hint = "compute it from constants, or move it into the function";
  throw fail(unit, node, "CONSTANT", `${name} is not known before the program runs`, hint);
}

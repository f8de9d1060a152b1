/** One exported function of the source to SSA. */

import { Builder } from "./build.ts";
import { annotated } from "./calls.ts";
import type { Func } from "./ir.ts";
import { type Frame, fail, Scope, type Unit } from "./operands.ts";
import type { Source } from "./parse.ts";
import { statements } from "./statements.ts";

/** @throws CompileError with the place of what cannot be compiled */
export function lower(
  source: Source,
  name: string,
  given: Readonly<Record<string, unknown>>,
): Func {
  const builder = new Builder(name);
  const unit: Unit = { source, builder, given, constants: new Map(), depth: 0 };
  const node = source.functions.get(name)!;
  if (node.params.length > 1 || node.params[0]?.type === "AssignmentPattern") {
    const hint = "take one parameter, the context";
    throw fail(unit, node, "TYPE", `program ${name} takes something else than the context`, hint);
  }
  const scope = new Scope();
  builder.at = node.start;
  const value = builder.make("context", 64, []);
  if (node.params[0]) {
    scope.declare(node.params[0].name, { kind: "fixed", operand: { kind: "context", value } });
  }
  const returns = annotated(unit, node.returnType);
  const frame: Frame = { name, returns };
  statements(unit, scope, frame, node.body.body);
  builder.at = node.end - 1;
  builder.return(builder.constant(0n));
  return builder.func;
}

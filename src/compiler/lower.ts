/**
 * Lowers the functions of one program to SSA: an exported
 * function, and those that it calls out of line.
 */
import { Builder } from "./build.ts";
import { annotated } from "./calls.ts";
import type { Func } from "./ir.ts";
import { checkFunction, type Frame, fail, Scope, type Unit } from "./operands.ts";
import type { Source } from "./parse.ts";
import { notExported } from "./project.ts";
import { statements } from "./statements.ts";

/**
 * @returns the program's own function, then those that it calls, each once
 * @throws CompileError with the place of the error
 */
export function lower(
  source: Source,
  name: string,
  given: Readonly<Record<string, unknown>>,
): Func[] {
  const { source: file, node } = programOf(source, name);
  const builder = new Builder(name, file.start + node.start);
  const outOfLine = { made: new Map(), open: [] };
  const unit: Unit = { source: file, builder, given, constants: new Map(), depth: 0, outOfLine };
  builder.origin = file.start;
  checkFunction(unit, node);
  if (node.params.length > 1 || node.params[0]?.type === "AssignmentPattern") {
    const hint = "take one parameter, the context";
    throw fail(unit, node, "TYPE", `program ${name} has a parameter other than the context`, hint);
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
  return [builder.func, ...outOfLine.made.values()];
}

/** Returns the function that a file exports under the name, declared in this or another file. */
function programOf(source: Source, name: string) {
  const found = source.project.exportOf(source, name);
  const node = found?.source.functions.get(found.name);
  if (found === undefined || node === undefined) {
    const exported = source.exports.get(name);
    if (typeof exported === "object") throw notExported(source, exported);
    throw new RangeError(`${source.file} exports no function ${name}`);
  }
  return { source: found.source, node };
}

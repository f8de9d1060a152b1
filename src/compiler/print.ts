/** Prints the intermediate form, for golden files and for debugging. */
import type { Block, Func, Terminator, Value } from "./ir.ts";

const name = (v: Value): string => (v.op === "const" ? `${BigInt.asIntN(64, v.imm)}` : `%${v.id}`);

function printValue(v: Value): string {
  const args = v.args.map(name).join(", ");
  const memory = ["load", "store", "atomic"].includes(v.op) ? ` u${v.size * 8} +${v.offset}` : "";
  const what = whatOf(v);
  return `  %${v.id} = ${what}${memory} ${v.bits} ${args}`.trimEnd();
}

function whatOf(v: Value): string {
  switch (v.op) {
    case "atomic":
      return v.atomic!;
    case "call":
      return `call ${v.callee?.name ?? `0x${v.imm.toString(16)}`}`;
    case "param":
      return `param ${v.imm}`;
    default:
      return v.op;
  }
}

function printEnd(end: Terminator | undefined): string {
  if (end?.kind === "jump") return `  jump b${end.to.id}`;
  if (end?.kind === "return") return `  return ${name(end.value)}`;
  if (end === undefined) return "  unreachable";
  const test = `${end.op} ${end.bits} ${name(end.a)}, ${name(end.b)}`;
  return `  branch ${test} ? b${end.then.id} : b${end.else.id}`;
}

function printBlock(block: Block): string[] {
  const from = block.preds.map((p) => `b${p.id}`).join(" ");
  const values = block.values.filter((v) => v.op !== "const").map(printValue);
  return [`b${block.id}:${from ? ` from ${from}` : ""}`, ...values, printEnd(block.end)];
}

export function printFunc(func: Func): string {
  return [`${func.name}:`, ...func.blocks.flatMap(printBlock)].join("\n");
}

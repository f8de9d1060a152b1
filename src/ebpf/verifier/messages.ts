/** Formats verdicts, in three sizes. */
import type { Refusal, Verdict } from "./index.ts";

/** One line: the program, the instruction, its source line, the error, and a fix. */
export function summarise(verdict: Verdict): string {
  const { name, refusal } = verdict;
  if (refusal === undefined) {
    return (
      `${name}: accepted: ${verdict.length} instructions, at most ${verdict.longest} executed, ` +
      `${verdict.stack} bytes of stack`
    );
  }
  return `${name}: ${place(refusal)}${refusal.message}; ${refusal.fix} [${refusal.rule}]`;
}

function place({ index, instruction, line }: Refusal): string {
  if (index < 0) return "";
  const source = line === undefined ? "" : ` (${line.file}:${line.line}: ${line.text})`;
  const text = instruction === "" ? "" : ` \`${instruction}\``;
  return `instruction ${index}${text}${source}: `;
}

/** @param detail 0: one line; 1: also path and registers; 2: also the log, if it was collected */
export function explain(verdict: Verdict, detail: 0 | 1 | 2): string {
  const lines: string[] = [];
  if (detail === 2) lines.push(...verdict.log, "");
  lines.push(summarise(verdict));
  const { refusal } = verdict;
  if (refusal !== undefined && detail > 0) lines.push(...pathLines(refusal));
  return lines.join("\n");
}

function pathLines({ path, omitted, state }: Refusal): string[] {
  const lines: string[] = [];
  if (path.length > 0) lines.push("  path to it:");
  if (omitted > 0) lines.push(`    … ${omitted} earlier jumps omitted …`);
  for (const { index, instruction, taken } of path) {
    lines.push(`    ${index}: ${instruction}  ${taken ? "taken" : "not taken"}`);
  }
  if (state !== "") lines.push(`  before it: ${state}`);
  return lines;
}

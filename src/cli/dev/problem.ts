/** What is wrong with a module, and where: for people, with the source line. */
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { CompileError } from "../../compiler/index.ts";
import { ModuleError, originalPlace } from "../../compiler/modules/data-url.ts";
import type { DeviceVerdict } from "../../devices/proof.ts";

export interface Problem {
  /** The phase that failed. */
  readonly phase: "compile" | "verify" | "load" | "swap";
  readonly message: string;
  readonly file?: string;
  readonly line?: number;
  readonly column?: number;
}

interface Place {
  readonly file: string;
  readonly line: number;
  readonly column: number;
}

const at = ({ file, line, column }: Place): Place => ({ file, line, column });

/** @param stack of an error in another thread: JavaScript that was made of TypeScript */
export function problemOf(phase: Problem["phase"], error: unknown): Problem {
  if (error instanceof CompileError) {
    const { reason, offending, hint, place } = error;
    const shown = offending === "" ? "" : ` (at "${offending}")`;
    return { phase, message: `${reason}${shown}: ${hint}`, ...at(place) };
  }
  if (error instanceof ModuleError) {
    const { reason, message, place } = error;
    return place === undefined ? { phase, message } : { phase, message: reason, ...at(place) };
  }
  const { message, stack = "" } = error instanceof Error ? error : new Error(String(error));
  return { phase, message, ...placeInStack(stack) };
}

export function refusalProblem({ name, form, refusal }: DeviceVerdict): Problem {
  const { message, fix, rule, line } = refusal!;
  const text = `${name} (${form}): ${message}; ${fix} [${rule}]`;
  return { phase: "verify", message: text, ...(line === undefined ? {} : at(line)) };
}

/** The innermost frame in a TypeScript file. */
function placeInStack(stack: string): Place | undefined {
  const frame = /(file:\/\/\/[^\s()?]+\.m?ts)(?:\?[^\s():]*)?:(\d+):(\d+)/.exec(stack);
  if (frame === null) return undefined;
  try {
    return originalPlace(fileURLToPath(frame[1]), Number(frame[2]), Number(frame[3]));
  } catch {
    return undefined;
  }
}

/** `file:line:column: message`, the line, and a mark under the column. */
export function describeProblem(problem: Problem): string {
  const { phase, message, file, line, column = 1 } = problem;
  if (file === undefined || line === undefined) return `${phase}: ${message}`;
  const head = `${file}:${line}:${column}: ${phase}: ${message}`;
  const text = lineAt(file, line);
  if (text === undefined) return head;
  const number = String(line).padStart(6);
  const mark = text.slice(0, column - 1).replace(/[^\t]/g, " ");
  return `${head}\n${number} | ${text}\n${" ".repeat(6)} | ${mark}^`;
}

function lineAt(file: string, line: number): string | undefined {
  try {
    return readFileSync(file, "utf8").split("\n")[line - 1];
  } catch {
    return undefined;
  }
}

/** Runs cases of the suite and judges the results. */
import { EbpfError } from "../errors.ts";
import { decodeProgram } from "../instruction.ts";
import type { Group } from "../opcode.ts";
import { CaseError, CaseNeedsError, caseCode, parseCase } from "./case.ts";
import { outcome, type RunProgram } from "./engines.ts";

export interface Verdict {
  readonly passed: boolean;
  /** It cannot be run here: neither passed nor failed. */
  readonly skipped?: true;
  /** Conformance groups of the program's instructions; empty if it does not decode. */
  readonly groups: readonly Group[];
  /** The reason of a failure, skip or expected refusal. */
  readonly detail: string;
}

/**
 * Runs the text of one case file. A case that expects an error passes if the assembler, decoder or
 * runner refuses the program. An invalid file fails.
 */
export function runCase(text: string, run: RunProgram): Verdict {
  try {
    const parsed = parseCase(text);
    const negative = parsed.expected === "error";
    const code = assembled(() => caseCode(parsed));
    if (typeof code === "string") return { passed: negative, groups: [], detail: code };
    const groups = groupsOf(code);
    const result = outcome(run, code, parsed.memory);
    if ("refused" in result) return { passed: negative, groups, detail: result.refused };
    const { r0 } = result;
    const passed = r0 === parsed.expected;
    return { passed, groups, detail: passed ? "" : wrong(r0, parsed.expected) };
  } catch (error) {
    if (error instanceof CaseNeedsError) {
      return { passed: false, skipped: true, groups: [], detail: error.message };
    }
    if (error instanceof CaseError) return { passed: false, groups: [], detail: error.message };
    throw error;
  }
}

/** Returns the groups of a program's instructions. */
export function groupsOf(code: Uint8Array): Group[] {
  try {
    return [...new Set(decodeProgram(code).map((i) => i.encoding.group))];
  } catch (error) {
    if (error instanceof EbpfError) return [];
    throw error;
  }
}

function assembled(make: () => Uint8Array): Uint8Array | string {
  try {
    return make();
  } catch (error) {
    if (error instanceof EbpfError) return error.message;
    throw error;
  }
}

function wrong(r0: bigint, expected: bigint | "error"): string {
  const got = `r0 is 0x${r0.toString(16)}`;
  return expected === "error"
    ? `${got}, but the program should be refused`
    : `${got}, not 0x${expected.toString(16)}`;
}

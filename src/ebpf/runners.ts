/** Selects a runner by name. */

import { EbpfError } from "./errors.ts";
import { Interpreter } from "./interpreter.ts";
import { Jit, type JitOptions } from "./jit/jit.ts";
import type { Runner, RunnerName } from "./runner.ts";

export { RUNNERS, type RunnerName } from "./runner.ts";

/** @throws EbpfError if the code is not a valid program, or unsupported by the runner */
export function createRunner(name: RunnerName, code: Uint8Array, options: JitOptions = {}): Runner {
  return name === "jit" ? new Jit(code, options) : new Interpreter(code, options);
}

/**
 * Returns the compiled program, or an interpreter if it cannot
 * be compiled. @throws EbpfError as above
 */
export function fastestRunner(code: Uint8Array, options: JitOptions = {}): Runner {
  try {
    return new Jit(code, options);
  } catch (error) {
    if (error instanceof EbpfError && error.code === "UNSUPPORTED") {
      return new Interpreter(code, options);
    }
    throw error;
  }
}

/** Choosing an engine by name. */
import type { Engine } from "./engine.ts";
import { EbpfError } from "./errors.ts";
import { Interpreter } from "./interpreter.ts";
import { Jit, type JitOptions } from "./jit/jit.ts";

export const ENGINES = ["interpreter", "jit"] as const;
export type EngineName = (typeof ENGINES)[number];

/** @throws EbpfError where the code is not a valid program, or nothing that this engine runs */
export function createEngine(name: EngineName, code: Uint8Array, options: JitOptions = {}): Engine {
  return name === "jit" ? new Jit(code, options) : new Interpreter(code, options);
}

/** The compiled program, or an interpreter where it cannot be compiled. @throws EbpfError as above */
export function fastestEngine(code: Uint8Array, options: JitOptions = {}): Engine {
  try {
    return new Jit(code, options);
  } catch (error) {
    if (error instanceof EbpfError && error.code === "UNSUPPORTED") {
      return new Interpreter(code, options);
    }
    throw error;
  }
}

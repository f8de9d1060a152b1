/** Helpers for the tables of unsafe programs. */
import type { ProgramName } from "../../../src/abi/programs.ts";
import { assembleText } from "../../../src/ebpf/text.ts";
import type { Rule, VerifyOptions } from "../../../src/ebpf/verifier/index.ts";

/** Size of the programs' context in bytes. */
export const SIZE = 4096;
export const v1 = (program: ProgramName): Partial<VerifyOptions> => ({ program, form: "v1" });

export type Row = readonly [
  what: string,
  code: readonly string[] | Uint8Array,
  rule: Rule,
  index: number,
  message: RegExp,
  options?: Partial<VerifyOptions>,
];

/** Returns a load of a host-written value at `offset` of the context. */
export const host = (register = 2, bits = 32): string => `r${register} = *(u${bits} *)(r1 + 16)`;
export const end = ["r0 = 0", "exit"];
export const ALLOC = 0x4b8f0000;
export const CSUM_GET = ALLOC + 1;
export const MD_GET = ALLOC + 3;
export const MD_SET = ALLOC + 4;
export const PRINT = ALLOC + 10;

/** Returns the code of `lines` with one byte changed. */
export function patched(
  lines: readonly string[],
  slot: number,
  byte: number,
  value: number,
): Uint8Array {
  const code = assembleText(lines);
  code[8 * slot + byte] = value;
  return code;
}

/** Returns a chain of `n` functions, each of which uses this much stack. */
export function chain(n: number, stack: number): string[] {
  const inner = [`*(u64 *)(r10 - ${stack}) = 1`, "call pc+1", "exit"];
  return [
    ...Array.from({ length: n - 1 }, () => inner).flat(),
    `*(u64 *)(r10 - ${stack}) = 1`,
    ...end,
  ];
}

/**
 * Returns a program that calls the first of `n` functions, each of which calls the next, and the
 * last one the first. No call within the cycle is ever executed.
 */
export function ring(n: number): string[] {
  const skip = ["r0 = 0", "if r0 == 0 goto +1"];
  const inner = Array.from({ length: n - 1 }, () => [...skip, "call pc+1", "exit"]).flat();
  return ["call pc+1", "exit", ...inner, ...skip, `call pc-${4 * n - 1}`, "exit"];
}

/** Guest programs in TypeScript, compiled to eBPF. */
export * from "./compile.ts";
export { CompileError, type CompileErrorCode } from "./errors.ts";
export { parseSource, type Source } from "./parse.ts";

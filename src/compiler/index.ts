/** Compiles guest programs in TypeScript to eBPF. */
export * from "./compile.ts";
export { CompileError, type CompileErrorCode } from "./errors.ts";
export type { Import, Source } from "./parse.ts";
export {
  importsOf,
  isLanguage,
  parseSource,
  programFiles,
  type ReadText,
  readFromDisk,
} from "./project.ts";

/** eBPF (RFC 9669): instructions, assembler, objects, interpreter, JIT, verifier. */
export * from "./assembler.ts";
export { type ElfProgram, readElf } from "./elf-reader.ts";
export { writeElf } from "./elf-writer.ts";
export * from "./errors.ts";
export * from "./instruction.ts";
export * from "./interpreter.ts";
export { Jit, type JitOptions } from "./jit/jit.ts";
export { LinearMemory } from "./jit/linear-memory.ts";
export type { Region } from "./memory.ts";
export * from "./opcode.ts";
export * from "./program.ts";
export * from "./runner.ts";
export * from "./runners.ts";
export { checkStructure, loadProgram } from "./structure.ts";
export * from "./text.ts";
export * from "./verifier/index.ts";

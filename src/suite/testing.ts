/** `bpfhv/testing`: what tests of a ring format are written with. docs/extending.md shows one. */
export type { ProgramSets } from "../devices/program-set.ts";
export { loadFormat } from "../devices/registry.ts";
export { type FlowCounts, Machine, type MachineOptions } from "./machine.ts";

/**
 * Compiles a program to a WebAssembly module: one function for the
 * program, and one for each that it calls.
 */
import { EbpfError } from "../errors.ts";
import { type Instruction, targetOf } from "../instruction.ts";
import type { Operation } from "../opcode.ts";
import { RESOLVE, RESOLVE_LOCALS, resolveBody } from "./access.ts";
import type { Callees } from "./calls.ts";
import { analyseFlow } from "./flow.ts";
import { compileFunction, type Entry, type Unit } from "./function.ts";
import { frameBytes } from "./layout.ts";
import { type Signature, TYPE, WasmModule } from "./wasm.ts";

// Functions may share code, which is then compiled once for each of them.
const MAX_COMPILED = 100_000;
// V8's time grows with the square of the number of nested blocks.
const MAX_JUMPS = 4000;
/** The kernel's limit. */
const MAX_FUNCTIONS = 256;

const HELPER: Signature = { params: Array(5).fill(TYPE.i64), results: [TYPE.i64] };
const BY_NUMBER: Signature = {
  params: [...HELPER.params, TYPE.i64, TYPE.i32],
  results: [TYPE.i64],
};
const TRAP_CALL: Signature = { params: [TYPE.i32, TYPE.i32, TYPE.i64, TYPE.i64], results: [] };

/**
 * @returns the binary; it imports "memory", "trap", "by_number" and the helpers, and exports "main"
 */
export function compileModule(unit: Unit, entry: Entry, memoryPages: number): Uint8Array {
  const { instructions } = unit;
  const module = new WasmModule();
  const trap = module.import("trap", TRAP_CALL);
  const byNumber = module.import("by_number", BY_NUMBER);
  const helpers = new Map(unit.helpers.map((n, i) => [n, module.import(`helper${i}`, HELPER)]));
  const code = resolveBody(unit.layout, trap);
  const resolve = module.add({ signature: RESOLVE, locals: RESOLVE_LOCALS, code });
  const locals = new Map(calledFunctions(instructions).map((slot, i) => [slot, resolve + 1 + i]));
  const callees: Callees = { trap, byNumber, resolve, helpers, locals };
  const flows = [...locals.keys(), 0].map((slot) => analyseFlow(instructions, slot));
  const zeroed = frameBytes(instructions);
  flows.forEach((flow, f) => {
    const how = f < locals.size ? "local" : entry;
    module.add(compileFunction(unit, callees, flow, how, zeroed));
  });
  return module.encode(memoryPages);
}

/**
 * @throws EbpfError UNSUPPORTED for instructions that no runner supports,
 * and for functions that share too much code
 */
export function checkCompilable(instructions: readonly Instruction[]): void {
  let jumps = 0;
  for (const { encoding, index } of instructions) {
    checkSupported(encoding.operation, index);
    if (encoding.operation.kind === "jump") jumps++;
  }
  if (jumps > MAX_JUMPS) {
    throw new EbpfError("UNSUPPORTED", `${jumps} conditional jumps: ${MAX_JUMPS} are compiled`);
  }
  const functions = calledFunctions(instructions);
  // The search for each function visits the whole program.
  if (functions.length > MAX_FUNCTIONS) {
    throw new EbpfError(
      "UNSUPPORTED",
      `${functions.length} functions: ${MAX_FUNCTIONS} are compiled`,
    );
  }
  // No function is longer than the program, so only many calls need a closer check.
  if ((functions.length + 1) * instructions.length <= MAX_COMPILED) return;
  let size = 0;
  for (const entry of [0, ...functions]) {
    for (const block of analyseFlow(instructions, entry).blocks) size += block.instructions.length;
    if (size > MAX_COMPILED) {
      const message = `functions that share code make more than ${MAX_COMPILED} instructions`;
      throw new EbpfError("UNSUPPORTED", message);
    }
  }
}

function checkSupported(operation: Operation, index: number): void {
  const refuse = (why: string): never => {
    throw new EbpfError("UNSUPPORTED", why, index);
  };
  if (operation.kind === "packet") refuse("legacy packet access is not supported");
  if (operation.kind === "call" && operation.target === "btf") {
    refuse("calls by BTF id need the kernel");
  }
  if (operation.kind === "wide" && operation.value !== "value") {
    refuse(`a 64-bit load of ${operation.value} needs a loader`);
  }
}

/** Returns the slots of the functions that the program calls. */
function calledFunctions(instructions: readonly Instruction[]): number[] {
  const targets = instructions.flatMap((i) =>
    i.encoding.operation.kind === "call" ? (targetOf(i) ?? []) : [],
  );
  return [...new Set(targets)];
}

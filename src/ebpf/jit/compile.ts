/** A program as a WebAssembly module: one function for the program, and one for each that it calls. */
import { MAX_FRAMES, STACK_SIZE, STACK_TOP } from "../engine.ts";
import { EbpfError } from "../errors.ts";
import { FRAME_POINTER, type Instruction, REGISTERS, targetOf, wideValue } from "../instruction.ts";
import type { Operation } from "../opcode.ts";
import {
  type AccessContext,
  emitMemory,
  firstFrame,
  isCertain,
  RESOLVE,
  RESOLVE_LOCALS,
  resolveBody,
} from "./access.ts";
import {
  emitAlu,
  emitCondition,
  emitMovsx,
  emitNeg,
  emitSwap,
  type Registers,
} from "./arithmetic.ts";
import { analyseFlow, type Flow } from "./flow.ts";
import { emitLimits, findWalks, MAX_WALKS } from "./hoist.ts";
import {
  entryGuesses,
  frameBytes,
  type Guesses,
  type Layout,
  updateGuesses,
  type Window,
} from "./layout.ts";
import { COUNTER_OFFSET } from "./linear-memory.ts";
import { ANY, constant } from "./range.ts";
import { analyseRanges, entryRanges, follow, nothingKnown, type Ranges } from "./ranges.ts";
import { type BlockEmitter, emitFlow } from "./structure.ts";
import { TRAP } from "./traps.ts";
import { Code, LOAD, type Signature, STORE, TYPE, type ValueType, WasmModule } from "./wasm.ts";

/** How a run is started. */
export type Entry =
  /** `main(r1: i64, r2: i64): i64` */
  | { readonly kind: "run" }
  /** `main(low half of r1: i32, high half: i32): i32`, the low half of R0. */
  | { readonly kind: "call" }
  /** `main(): i32`: R1 is a constant, so that accesses through it need no test once V8 has optimised the code. */
  | { readonly kind: "fixed"; readonly r1: number };

export interface Unit {
  readonly instructions: readonly Instruction[];
  readonly layout: Layout;
  readonly stepLimit: number;
  /** Numbers of the helpers that exist: imported as "helper0", "helper1", … in this order. */
  readonly helpers: readonly number[];
}

// Functions may share code, which then is compiled once for each.
const MAX_COMPILED = 100_000;
// V8's time grows with the square of the blocks that are nested.
const MAX_JUMPS = 4000;

const NONE: ReadonlyMap<number, Window> = new Map();
const HELPER: Signature = { params: Array(5).fill(TYPE.i64), results: [TYPE.i64] };
const BY_NUMBER: Signature = {
  params: [...HELPER.params, TYPE.i64, TYPE.i32],
  results: [TYPE.i64],
};
const TRAP_CALL: Signature = { params: [TYPE.i32, TYPE.i32, TYPE.i64, TYPE.i64], results: [] };
/** Called functions: R0..R10 in, R0 out. */
const LOCAL: Signature = { params: Array(REGISTERS).fill(TYPE.i64), results: [TYPE.i64] };
const SIGNATURES: Readonly<Record<Entry["kind"], Signature>> = {
  run: { params: [TYPE.i64, TYPE.i64], results: [TYPE.i64] },
  call: { params: [TYPE.i32, TYPE.i32], results: [TYPE.i32] },
  fixed: { params: [], results: [TYPE.i32] },
};

/** Indices of what functions call. */
interface Callees {
  readonly trap: number;
  readonly byNumber: number;
  readonly resolve: number;
  /** By helper number. */
  readonly helpers: ReadonlyMap<number, number>;
  /** By slot of the first instruction. */
  readonly locals: ReadonlyMap<number, number>;
}

/** @returns the binary; it imports "memory", "trap", "by_number" and the helpers, and exports "main" */
export function compileModule(unit: Unit, entry: Entry, memoryPages: number): Uint8Array {
  const { instructions } = unit;
  const module = new WasmModule();
  const trap = module.import("trap", TRAP_CALL);
  const byNumber = module.import("by_number", BY_NUMBER);
  const helpers = new Map(unit.helpers.map((n, i) => [n, module.import(`helper${i}`, HELPER)]));
  const code = resolveBody(unit.layout, trap);
  const resolve = module.add({ signature: RESOLVE, locals: RESOLVE_LOCALS, code });
  const locals = new Map(calledFunctions(instructions).map((slot, i) => [slot, resolve + 1 + i]));
  const callees = { trap, byNumber, resolve, helpers, locals };
  const flows = [...locals.keys(), 0].map((slot) => analyseFlow(instructions, slot));
  const zeroed = frameBytes(instructions);
  flows.forEach((flow, f) => {
    const how = f < locals.size ? "local" : entry;
    module.add(new FunctionCompiler(unit, callees, flow, how, zeroed).compile());
  });
  return module.encode(memoryPages);
}

/** @throws EbpfError UNSUPPORTED for what no engine runs, and for functions that share too much code */
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
  // No function is longer than the program: only many calls take a closer look.
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
  if (operation.kind === "packet") refuse("legacy packet access is not run here");
  if (operation.kind === "call" && operation.target === "btf") {
    refuse("calls by BTF id need a kernel");
  }
  if (operation.kind === "wide" && operation.value !== "value") {
    refuse(`a 64-bit load of ${operation.value} needs a loader`);
  }
}

/** Slots of the functions that the program calls. */
function calledFunctions(instructions: readonly Instruction[]): number[] {
  const targets = instructions.flatMap((i) =>
    i.encoding.operation.kind === "call" ? (targetOf(i) ?? []) : [],
  );
  return [...new Set(targets)];
}

function rangesAtEntry(entry: Entry | "local"): Ranges {
  if (entry === "local") return nothingKnown();
  const r1 = entry.kind === "fixed" ? constant(entry.r1) : ANY;
  return entryRanges(STACK_TOP, r1, entry.kind === "run" ? ANY : constant(0));
}

class FunctionCompiler implements BlockEmitter {
  readonly state: number;
  readonly #code = new Code();
  readonly #unit: Unit;
  readonly #callees: Callees;
  readonly #flow: Flow;
  readonly #entry: Entry | "local";
  readonly #zeroed: number;
  readonly #signature: Signature;
  readonly #registers: Registers;
  /** Instructions that are left of the step limit. */
  readonly #fuel: number;
  /** For tests of bounds in front of loops. */
  readonly #limits: readonly number[];
  readonly #access: AccessContext;
  /** Of each block, when its code is made. */
  readonly #guesses: Guesses[] = [];
  /** Of each block, at its start. */
  readonly #ranges: readonly (Ranges | undefined)[];
  /** At the current instruction. */
  #known: Ranges = nothingKnown();
  /** Windows of accesses, by slot: of the loop whose bounds were tested last, and of those that are tested already. */
  #hoisted: ReadonlyMap<number, Window> = NONE;
  #proven: ReadonlyMap<number, Window> = NONE;
  /** Instructions of the current block that are counted already and have not run yet. */
  #ahead = 0;

  constructor(unit: Unit, callees: Callees, flow: Flow, entry: Entry | "local", zeroed: number) {
    this.#unit = unit;
    this.#callees = callees;
    this.#flow = flow;
    this.#entry = entry;
    this.#zeroed = zeroed;
    this.#signature = entry === "local" ? LOCAL : SIGNATURES[entry.kind];
    const first = this.#signature.params.length;
    this.#registers = Array.from({ length: REGISTERS }, (_, n) =>
      entry === "local" ? n : first + n,
    );
    const after = entry === "local" ? first : first + REGISTERS;
    this.#fuel = after;
    this.state = after + 2;
    this.#limits = Array.from({ length: MAX_WALKS }, (_, n) => after + 3 + n);
    this.#ranges = analyseRanges(flow, rangesAtEntry(entry));
    this.#access = {
      code: this.#code,
      registers: this.#registers,
      scratch: after + 1,
      first: entry !== "local",
      layout: unit.layout,
      known: (register) => this.#known[register]!,
      proven: (index) => this.#proven.get(index),
      resolve: callees.resolve,
      sync: () => this.#sync(this.#ahead),
    };
  }

  compile() {
    this.#prologue();
    emitFlow(this.#code, this.#flow, this);
    const registers: ValueType[] = this.#entry === "local" ? [] : Array(REGISTERS).fill(TYPE.i64);
    const limits: ValueType[] = Array(MAX_WALKS).fill(TYPE.i64);
    const locals = [...registers, TYPE.i64, TYPE.i64, TYPE.i32, ...limits];
    const exported = this.#entry === "local" ? {} : { exported: "main" };
    return { signature: this.#signature, locals, code: this.#code, ...exported };
  }

  loopHead(block: number): void {
    const [first] = this.#flow.blocks[block]!.instructions;
    this.#checkFuel(first!.index);
  }

  count(instructions: number): void {
    if (instructions === 0) return;
    this.#code.get(this.#fuel).i64(BigInt(instructions)).op("i64_sub").set(this.#fuel);
  }

  hoist(blocks: readonly number[], rounds: number): (() => void) | undefined {
    const { layout } = this.#unit;
    const head = blocks[0]!;
    const frame = this.#access.first ? firstFrame(layout) : undefined;
    const { walks, windows } = findWalks(
      blocks.flatMap((b) => this.#flow.blocks[b]!.instructions),
      {
        layout,
        frame,
        guesses: this.#guesses[head] ?? entryGuesses(layout),
        known: this.#ranges[head] ?? nothingKnown(),
        certain: (i, base) => isCertain(layout, frame, i, base),
      },
    );
    this.#hoisted = windows;
    return emitLimits(this.#code, this.#registers, walks, rounds, this.#limits);
  }

  body(block: number, ahead?: number, hoisted = false): void {
    const { instructions, taken, next } = this.#flow.blocks[block]!;
    const guesses = [...(this.#guesses[block] ?? entryGuesses(this.#unit.layout))];
    this.#known = [...(this.#ranges[block] ?? nothingKnown())];
    this.#proven = hoisted ? this.#hoisted : NONE;
    if (ahead === undefined) this.count(instructions.length);
    this.#ahead = ahead ?? instructions.length;
    for (const i of instructions) {
      this.#instruction(i, guesses);
      updateGuesses(guesses, i, this.#unit.layout);
      follow(this.#known, i);
      this.#ahead--;
    }
    for (const to of [taken, next]) if (to >= 0) this.#guesses[to] ??= [...guesses];
  }

  #prologue(): void {
    const code = this.#code;
    const r = this.#registers;
    if (this.#entry === "local") {
      code.i32(0).access(LOAD[8], COUNTER_OFFSET).set(this.#fuel);
      this.#checkFuel(this.#flow.blocks[0]!.instructions[0]!.index);
    } else {
      code.i64(BigInt(this.#unit.stepLimit)).set(this.#fuel);
      code.i64(BigInt(STACK_TOP)).set(r[FRAME_POINTER]!);
    }
    if (this.#entry === "local") return this.#zeroFrame();
    const { kind } = this.#entry;
    if (kind === "run") code.get(0).set(r[1]!).get(1).set(r[2]!);
    else if (kind === "fixed") code.i64(BigInt(this.#entry.r1)).set(r[1]!);
    else {
      code.get(1).op("i64_extend_i32_u").i64(32n).op("i64_shl");
      code.get(0).op("i64_extend_i32_u", "i64_or").set(r[1]!);
    }
    this.#zeroFrame();
  }

  #zeroFrame(): void {
    const { stack } = this.#unit.layout;
    const code = this.#code;
    for (let offset = -this.#zeroed; offset < 0; offset += 8) {
      if (this.#entry !== "local") code.i32(0);
      else {
        const below = BigInt(stack.base + stack.length);
        code.get(this.#registers[FRAME_POINTER]!).i64(below).op("i64_sub", "i32_wrap_i64");
        // Offsets of accesses are unsigned: the rest of the stack is added to the address instead.
        code.i32(stack.offset + stack.length + offset).op("i32_add");
      }
      code.i64(0n);
      const at = this.#entry === "local" ? 0 : stack.offset + stack.length + offset;
      code.access(STORE[8], at);
    }
  }

  /** Stores what is left of the step limit, `more` instructions not having run. */
  #sync(more: number): void {
    const code = this.#code.i32(0).get(this.#fuel);
    if (more > 0) code.i64(BigInt(more)).op("i64_add");
    code.access(STORE[8], COUNTER_OFFSET);
  }

  #checkFuel(index: number): void {
    this.#code.get(this.#fuel).i64(0n).op("i64_lt_s").if();
    this.#sync(0);
    this.#trap(TRAP.steps, index);
    this.#code.op("end");
  }

  /** Ends the run. `address`: 64 bits that the message needs. */
  #trap(kind: number, index: number, address = 0n): void {
    this.#code.i32(kind).i32(index).i64(address).get(this.#registers[FRAME_POINTER]!);
    this.#code.call(this.#callees.trap).op("unreachable");
  }

  #instruction(i: Instruction, guesses: Guesses): void {
    const code = this.#code;
    const r = this.#registers;
    const { operation } = i.encoding;
    switch (operation.kind) {
      case "alu":
        return emitAlu(code, r, i, operation);
      case "movsx":
        return emitMovsx(code, r, i, operation);
      case "neg":
        return emitNeg(code, r, i, operation);
      case "swap":
        return emitSwap(code, r, i, operation);
      case "jump":
        return emitCondition(code, r, i, operation);
      case "goto":
        return;
      case "load":
        return emitMemory(this.#access, i, operation, guesses[i.src]);
      case "store":
      case "atomic":
        return emitMemory(this.#access, i, operation, guesses[i.dst]);
      case "wide":
        code.i64(wideValue(i)).set(r[i.dst]!);
        return;
      case "call":
        return this.#call(i, operation);
      case "exit":
        return this.#exit(i);
      case "packet":
        return;
    }
  }

  #exit(i: Instruction): void {
    if (this.#entry !== "local" && !this.#fits()) this.#checkFuel(i.index);
    this.#sync(0);
    this.#code.get(this.#registers[0]!);
    if (this.#signature.results[0] === TYPE.i32) this.#code.op("i32_wrap_i64");
    this.#code.op("return");
  }

  /** Whether no run goes over the step limit, as each instruction runs once at most. */
  #fits(): boolean {
    const { blocks, isLoop } = this.#flow;
    if (isLoop.includes(1)) return false;
    let instructions = 0;
    for (const block of blocks) instructions += block.instructions.length;
    return instructions <= this.#unit.stepLimit && this.#callees.locals.size === 0;
  }

  #call(i: Instruction, { target }: Extract<Operation, { kind: "call" }>): void {
    switch (target) {
      case "local":
        return this.#callLocal(i);
      case "helper":
        return this.#callHelper(i);
      case "register":
        this.#sync(this.#ahead);
        this.#arguments();
        this.#code.get(this.#registers[i.dst]!).i32(i.index).call(this.#callees.byNumber);
        this.#code.set(this.#registers[0]!);
        return;
      case "btf":
        return;
    }
  }

  #arguments(): void {
    for (let n = 1; n <= 5; n++) this.#code.get(this.#registers[n]!);
  }

  #callHelper(i: Instruction): void {
    this.#sync(this.#ahead);
    const helper = this.#callees.helpers.get(i.imm >>> 0);
    if (helper === undefined) return this.#trap(TRAP.helper, i.index, BigInt(i.imm >>> 0));
    this.#arguments();
    this.#code.call(helper).set(this.#registers[0]!);
  }

  #callLocal(i: Instruction): void {
    const code = this.#code;
    const r = this.#registers;
    const deepest = STACK_TOP - (MAX_FRAMES - 1) * STACK_SIZE;
    if (this.#entry === "local") {
      code.get(r[FRAME_POINTER]!).i64(BigInt(deepest)).op("i64_eq").if();
      this.#sync(this.#ahead);
      this.#trap(TRAP.depth, i.index);
      code.op("end");
    }
    this.#sync(this.#ahead - 1);
    for (let n = 0; n < FRAME_POINTER; n++) code.get(r[n]!);
    code.get(r[FRAME_POINTER]!).i64(BigInt(STACK_SIZE)).op("i64_sub");
    code.call(this.#callees.locals.get(targetOf(i)!)!).set(r[0]!);
    code
      .i32(0)
      .access(LOAD[8], COUNTER_OFFSET)
      .i64(BigInt(this.#ahead - 1))
      .op("i64_sub");
    code.set(this.#fuel);
  }
}

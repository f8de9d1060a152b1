/**
 * Compiles one function of a program to WebAssembly: its blocks, the instruction counter, calls.
 */

import { FRAME_POINTER, type Instruction, REGISTERS, wideValue } from "../instruction.ts";
import { STACK_TOP } from "../runner.ts";
import { type AccessContext, emitMemory, firstFrame } from "./access.ts";
import {
  emitAlu,
  emitCondition,
  emitMovsx,
  emitNeg,
  emitSwap,
  type Registers,
} from "./arithmetic.ts";
import { type CallContext, type Callees, emitCall } from "./calls.ts";
import type { Flow } from "./flow.ts";
import { MAX_WALKS } from "./hoist.ts";
import { entryGuesses, type Guesses, type Layout, updateGuesses, type Window } from "./layout.ts";
import { COUNTER_OFFSET } from "./linear-memory.ts";
import { analyseLoop, type LoopFacts } from "./loop.ts";
import { ANY, constant } from "./range.ts";
import { analyseRanges, entryRanges, follow, nothingKnown, type Ranges } from "./ranges.ts";
import type { Row } from "./row.ts";
import { stayTest } from "./stay.ts";
import { type Ahead, type BlockEmitter, emitFlow } from "./structure.ts";
import { TRAP } from "./traps.ts";
import {
  Code,
  type FunctionBody,
  LOAD,
  type Signature,
  STORE,
  TYPE,
  type ValueType,
} from "./wasm.ts";

/** Sums tested for one loop: those of its accesses, and that of its exit. */
const MAX_LIMITS = MAX_WALKS + 1;
const NONE: ReadonlyMap<number, Window> = new Map();

/** How a run is started. */
export type Entry =
  /** `main(r1: i64, r2: i64): i64` */
  | { readonly kind: "run" }
  /** `main(low half of r1: i32, high half: i32): i32`, the low half of R0. */
  | { readonly kind: "call" }
  /**
   * `main(): i32`: R1 is a constant, so that accesses through it need no test once V8 has optimised
   * the code.
   */
  | { readonly kind: "fixed"; readonly r1: number };

export interface Unit {
  readonly instructions: readonly Instruction[];
  readonly layout: Layout;
  readonly stepLimit: number;
  /** Numbers of the helpers that exist: imported as "helper0", "helper1", … in this order. */
  readonly helpers: readonly number[];
}

/** Called functions: R0..R10 in, R0 out. */
const LOCAL: Signature = { params: Array(REGISTERS).fill(TYPE.i64), results: [TYPE.i64] };
const SIGNATURES: Readonly<Record<Entry["kind"], Signature>> = {
  run: { params: [TYPE.i64, TYPE.i64], results: [TYPE.i64] },
  call: { params: [TYPE.i32, TYPE.i32], results: [TYPE.i32] },
  fixed: { params: [], results: [TYPE.i32] },
};

function rangesAtEntry(entry: Entry | "local"): Ranges {
  if (entry === "local") return nothingKnown();
  const r1 = entry.kind === "fixed" ? constant(entry.r1) : ANY;
  return entryRanges(STACK_TOP, r1, entry.kind === "run" ? ANY : constant(0));
}

/** @param zeroed bytes of each frame that are cleared first */
export function compileFunction(
  unit: Unit,
  callees: Callees,
  flow: Flow,
  entry: Entry | "local",
  zeroed: number,
): FunctionBody {
  return new FunctionCompiler(unit, callees, flow, entry, zeroed).compile();
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
  /** Instructions left of the step limit. */
  readonly #fuel: number;
  /** For hoisted bounds checks. */
  readonly #limits: readonly number[];
  readonly #access: AccessContext;
  readonly #calls: CallContext;
  /** Of each block, when its code is made. */
  readonly #guesses: Guesses[] = [];
  /** Of each block, at its start. */
  readonly #ranges: readonly (Ranges | undefined)[];
  /** At the current instruction. */
  #known: Ranges = nothingKnown();
  /**
   * Windows of accesses, by slot: those of the loop with the latest
   * hoisted checks, and those proved before.
   */
  #hoisted: ReadonlyMap<number, Window> = NONE;
  #proven: ReadonlyMap<number, Window> = NONE;
  /** Facts of the loop analysed last. */
  #facts: (LoopFacts & { readonly row: Row }) | undefined;
  /** Instructions of the current block that are counted, but have not run yet. */
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
    this.#limits = Array.from({ length: MAX_LIMITS }, (_, n) => after + 3 + n);
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
    this.#calls = {
      code: this.#code,
      registers: this.#registers,
      fuel: this.#fuel,
      callees,
      first: entry !== "local",
      sync: (more) => this.#sync(more),
      trap: (kind, index, address) => this.#trap(kind, index, address),
    };
  }

  compile(): FunctionBody {
    this.#prologue();
    emitFlow(this.#code, this.#flow, this);
    const registers: ValueType[] = this.#entry === "local" ? [] : Array(REGISTERS).fill(TYPE.i64);
    const limits: ValueType[] = Array(MAX_LIMITS).fill(TYPE.i64);
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

  hoist(row: Row, iterations: number): Ahead | undefined {
    const { stays, exit, windows } = this.#analyse(row);
    this.#hoisted = windows;
    for (const all of exit === undefined ? [stays] : [[...stays, exit], stays]) {
      const test = stayTest(this.#code, this.#registers, all, iterations, this.#limits);
      if (test !== undefined) return { ...test, stays: all.length > stays.length };
    }
    return undefined;
  }

  #analyse(row: Row): LoopFacts {
    const { layout } = this.#unit;
    if (this.#facts?.row === row) return this.#facts;
    const head = row.blocks[0]!;
    const facts = analyseLoop(this.#flow, row, {
      layout,
      frame: this.#access.first ? firstFrame(layout) : undefined,
      guesses: this.#guesses[head] ?? entryGuesses(layout),
      known: this.#ranges[head] ?? nothingKnown(),
    });
    this.#facts = { row, ...facts };
    return this.#facts;
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

  /** Stores the rest of the step limit; `more` counted instructions have not run. */
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
        return emitCall(this.#calls, i, operation, this.#ahead - 1);
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
}

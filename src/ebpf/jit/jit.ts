/** The runner that compiles programs to WebAssembly. */

import { noHelper } from "../faults.ts";
import type { Instruction } from "../instruction.ts";
import { Memory } from "../memory.ts";
import {
  type Helper,
  type Runner,
  type RunnerOptions,
  STACK_BASE,
  STACK_TOP,
  STEP_LIMIT,
} from "../runner.ts";
import { loadProgram } from "../structure.ts";
import { checkCompilable, compileModule } from "./compile.ts";
import type { Entry, Unit } from "./function.ts";
import { layOut } from "./layout.ts";
import { COUNTER_OFFSET, LinearMemory, STACK_OFFSET } from "./linear-memory.ts";
import { type TrapContext, trapError } from "./traps.ts";
import { instantiate } from "./webassembly.ts";

export interface JitOptions extends RunnerOptions {
  /**
   * Holds the regions' bytes. Programs with a common memory share its stack: a helper must not run
   * another one of them. Default: a memory for the stack alone.
   */
  readonly memory?: LinearMemory;
}

type Run = (r1: bigint, r2: bigint) => bigint;
type Call = (low: number, high: number) => number;
type Fixed = () => number;

const TWO_32 = 2 ** 32;

/** Thrown through compiled code by a helper that ends the program. */
class Unwind {
  readonly result: bigint;
  constructor(result: bigint) {
    this.result = result;
  }
}

/**
 * A program, compiled at its first run. It differs from the interpreter in one
 * respect: the step limit is tested at loop headers, calls and the last exit, so a
 * run may exceed it by a path without loops.
 */
export class Jit implements Runner {
  readonly name = "jit";
  readonly #unit: Unit;
  /** Of all frames, also those that no function has now: their bytes are the program's own. */
  readonly memory: Memory;
  readonly #linear: LinearMemory;
  readonly #helpers: ReadonlyMap<number, Helper>;
  readonly #options: JitOptions;
  readonly #traps: TrapContext;
  /** Rest of the step limit, in two halves. */
  readonly #left: Int32Array;
  #run: Run | undefined;
  #call: Call | undefined;
  #fixed: Fixed | undefined;
  /** The R1 of `#fixed`. */
  #fixedR1 = -1;

  /** @throws EbpfError if the code is not a valid program, or UNSUPPORTED */
  constructor(code: Uint8Array, options: JitOptions = {}) {
    const memory = options.memory ?? new LinearMemory(0);
    const regions = options.regions ?? [];
    const instructions = loadProgram(code);
    checkCompilable(instructions);
    const stepLimit = options.stepLimit ?? STEP_LIMIT;
    const stack = new Uint8Array(memory.buffer, STACK_OFFSET, STACK_TOP - STACK_BASE);
    this.#linear = memory;
    this.memory = new Memory([...regions, { name: "stack", base: STACK_BASE, bytes: stack }]);
    this.#options = options;
    this.#helpers = options.helpers ?? new Map();
    const used = calledHelpers(instructions).filter((n) => this.#helpers.has(n));
    this.#unit = { instructions, layout: layOut(regions, memory), stepLimit, helpers: used };
    this.#traps = {
      memory: new Memory([...regions, { name: "stack", base: STACK_BASE, bytes: stack }]),
      instructions: new Map(instructions.map((i) => [i.index, i])),
      stepLimit,
    };
    this.#left = new Int32Array(memory.buffer, COUNTER_OFFSET, 2);
  }

  get executed(): number {
    const left = this.#left[1]! * TWO_32 + (this.#left[0]! >>> 0);
    return Math.min(this.#unit.stepLimit - left, this.#unit.stepLimit);
  }

  run(r1 = 0n, r2 = 0n): bigint {
    try {
      this.#run ??= this.#compile({ kind: "run" }) as Run;
      return this.#run(r1, r2);
    } catch (error) {
      return BigInt.asIntN(64, this.#unwound(error));
    }
  }

  call(r1: number): number {
    // The rare case is a separate function, so that V8 inlines this one.
    return r1 === this.#fixedR1 ? this.#fixed!() : this.#callAny(r1);
  }

  /**
   * Compiles at once, for accesses to one context. Returns WebAssembly's
   * own function if no helper ends programs.
   */
  bind(r1: number): () => number {
    if (this.#options.unwinds !== undefined) return () => this.call(r1);
    if (this.#fixed !== undefined && r1 === this.#fixedR1) return this.#fixed;
    const fixed = this.#compile({ kind: "fixed", r1 }) as Fixed;
    if (this.#fixed === undefined) {
      this.#fixed = fixed;
      this.#fixedR1 = r1;
    }
    return fixed;
  }

  #callAny(r1: number): number {
    // A helper that ends the program throws. V8 inlines no call of
    // WebAssembly in a function with a catch.
    if (this.#fixed === undefined && this.#options.unwinds === undefined) return this.bind(r1)();
    try {
      this.#call ??= this.#compile({ kind: "call" }) as Call;
      return this.#call(r1 | 0, (r1 / TWO_32) | 0);
    } catch (error) {
      return Number(BigInt.asIntN(32, this.#unwound(error)));
    }
  }

  #unwound(error: unknown): bigint {
    if (!(error instanceof Unwind)) throw error;
    // The call itself has been executed.
    this.#left[0] = this.#left[0]! - 1;
    if (this.#left[0] === -1) this.#left[1] = this.#left[1]! - 1;
    return error.result;
  }

  #compile(entry: Entry): unknown {
    const pages = this.#linear.buffer.byteLength / 65536;
    const imports: Record<string, unknown> = {
      memory: this.#linear.wasm,
      trap: (kind: number, index: number, address: bigint, r10: bigint) => {
        throw trapError(this.#traps, kind, index, address, r10);
      },
      by_number: (...values: [bigint, bigint, bigint, bigint, bigint, bigint, number]) => {
        const number = Number(BigInt.asUintN(32, values[5]));
        const helper = this.#helpers.get(number);
        if (helper === undefined) throw noHelper(number, values[6]);
        return this.#import(number, helper)(values[0], values[1], values[2], values[3], values[4]);
      },
    };
    this.#unit.helpers.forEach((number, i) => {
      imports[`helper${i}`] = this.#import(number, this.#helpers.get(number)!);
    });
    return instantiate(compileModule(this.#unit, entry, pages), imports).main;
  }

  /** Wraps a helper for compiled code: WebAssembly passes signed values. */
  #import(number: number, helper: Helper): Helper {
    const { unwinds } = this.#options;
    const u = (value: bigint) => BigInt.asUintN(64, value);
    return (a, b, c, d, e) => {
      const result = helper(u(a), u(b), u(c), u(d), u(e));
      if (unwinds?.(number, u(result))) throw new Unwind(u(result));
      return result;
    };
  }
}

function calledHelpers(instructions: readonly Instruction[]): number[] {
  const numbers = instructions.flatMap(({ encoding: { operation }, imm }) =>
    operation.kind === "call" && operation.target === "helper" ? [imm >>> 0] : [],
  );
  return [...new Set(numbers)];
}

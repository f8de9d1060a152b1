/**
 * The reference interpreter. Each instruction becomes one small function over the
 * register file, and a run calls them in turn. 64-bit arithmetic uses BigInts. The
 * register file is one buffer seen as 64-bit words and as 32-bit halves, so that
 * addresses, 32-bit operations and copies need no BigInt.
 */
import {
  ALU32,
  ALU64,
  ATOMIC32,
  ATOMIC64,
  JUMP32,
  JUMP64,
  plainAtomic,
  swapBytes,
} from "./arithmetic.ts";
import { EbpfError } from "./errors.ts";
import { misaligned, noHelper, outside, readOnly, tooDeep, tooLong } from "./faults.ts";
import {
  FRAME_POINTER,
  type Instruction,
  REGISTERS,
  slotsOf,
  targetOf,
  wideValue,
} from "./instruction.ts";
import { type MappedRegion, Memory } from "./memory.ts";
import type { AccessSize, Operation } from "./opcode.ts";
import {
  type Helper,
  MAX_FRAMES,
  type Runner,
  type RunnerOptions,
  STACK_BASE,
  STACK_SIZE,
  STEP_LIMIT,
} from "./runner.ts";
import { fetchesIntoSrc, loadProgram } from "./structure.ts";

/** Executes one instruction and returns the slot of the next, or DONE. */
type Step = () => number;
type Of<K extends Operation["kind"]> = Extract<Operation, { kind: K }>;

const DONE = -1;
const TWO_32 = 2 ** 32;
const SAVED = 9;
/** Saved R1..R9 and the return slot. */
interface Frame {
  readonly saved: BigUint64Array;
  back: number;
}

export class Interpreter implements Runner {
  readonly name = "interpreter";
  /** R0..R10. */
  readonly #r = new BigUint64Array(REGISTERS);
  /** The same buffer as low and high halves: register n is at 2n and 2n + 1. */
  readonly #w = new Uint32Array(this.#r.buffer);
  readonly memory: Memory;
  readonly #stack: MappedRegion;
  readonly #helpers: ReadonlyMap<number, Helper>;
  readonly #unwinds: (helper: number, result: bigint) => boolean;
  readonly #stepLimit: number;
  readonly #steps: Step[] = [];
  readonly #frames: Frame[] = [];
  #depth = 0;
  #executed = 0;

  /** @throws EbpfError if the code is not a valid program */
  constructor(code: Uint8Array, options: RunnerOptions = {}) {
    const stack = new Uint8Array(STACK_SIZE * MAX_FRAMES);
    this.memory = new Memory([
      ...(options.regions ?? []),
      { name: "stack", base: STACK_BASE, bytes: stack },
    ]);
    this.#stack = this.memory.regions.at(-1)!;
    this.#helpers = options.helpers ?? new Map();
    this.#unwinds = options.unwinds ?? (() => false);
    this.#stepLimit = options.stepLimit ?? STEP_LIMIT;
    for (let i = 0; i < MAX_FRAMES; i++) {
      this.#frames.push({ saved: new BigUint64Array(SAVED), back: 0 });
    }
    for (const instruction of loadProgram(code)) {
      this.#steps[instruction.index] = this.#compile(instruction);
      // The second half of a wide load. No jump leads here, and an array without holes is faster.
      if (slotsOf(instruction) === 2) this.#steps[instruction.index + 1] = () => DONE;
    }
  }

  get executed(): number {
    return this.#executed;
  }

  run(r1 = 0n, r2 = 0n): bigint {
    this.#r.fill(0n);
    this.#r[1] = r1;
    this.#r[2] = r2;
    this.#execute();
    return BigInt.asIntN(64, this.#r[0]!);
  }

  call(r1: number): number {
    this.#w.fill(0);
    this.#w[2] = r1;
    this.#w[3] = r1 / TWO_32;
    this.#execute();
    return this.#w[0]! | 0;
  }

  bind(r1: number): () => number {
    return () => this.call(r1);
  }

  #execute(): void {
    this.#depth = 0;
    this.#enterFrame();
    const steps = this.#steps;
    const limit = this.#stepLimit;
    let slot = 0;
    let executed = 0;
    try {
      for (; slot !== DONE; executed++) {
        if (executed === limit) throw tooLong(limit, slot);
        slot = steps[slot]!();
      }
    } finally {
      this.#executed = executed;
    }
  }

  /**
   * Clears the frame of the function at the current depth: 512 bytes below those of its callers.
   */
  #enterFrame(): void {
    const top = this.#stack.end - this.#depth * STACK_SIZE;
    this.#stack.start = top - STACK_SIZE;
    const from = this.#stack.start - this.#stack.base;
    this.#stack.u8.fill(0, from, from + STACK_SIZE);
    this.#r[FRAME_POINTER] = BigInt(top);
  }

  #compile(i: Instruction): Step {
    const { operation } = i.encoding;
    switch (operation.kind) {
      case "alu":
        return operation.bits === 64 ? this.#alu64(i, operation) : this.#alu32(i, operation);
      case "movsx":
        return this.#movsx(i, operation);
      case "neg":
        return this.#neg(i, operation);
      case "swap":
        return this.#swap(i, operation);
      case "jump":
        return operation.bits === 64 ? this.#jump64(i, operation) : this.#jump32(i, operation);
      case "goto": {
        const target = targetOf(i)!;
        return () => target;
      }
      case "call":
        return this.#call(i, operation);
      case "exit":
        return () => this.#exit();
      case "load":
        return this.#load(i, operation);
      case "store":
        return this.#store(i, operation);
      case "atomic":
        return operation.bits === 64 ? this.#atomic64(i, operation) : this.#atomic32(i, operation);
      case "wide":
        return this.#wide(i, operation);
      case "packet":
        throw new EbpfError("UNSUPPORTED", "legacy packet access is not supported", i.index);
    }
  }

  #alu64(i: Instruction, { op, source }: Of<"alu">): Step {
    const r = this.#r;
    const { dst, src } = i;
    const next = i.index + 1;
    if (op === "mov" && source === "reg") return this.#copy(dst, src, next);
    const compute = ALU64[op];
    if (source === "reg") {
      return () => {
        r[dst] = compute(r[dst]!, r[src]!);
        return next;
      };
    }
    // Immediates are sign extended, then taken as unsigned.
    const b = BigInt.asUintN(64, BigInt(i.imm));
    return () => {
      r[dst] = compute(r[dst]!, b);
      return next;
    };
  }

  #copy(dst: number, src: number, next: number): Step {
    const w = this.#w;
    return () => {
      w[2 * dst] = w[2 * src]!;
      w[2 * dst + 1] = w[2 * src + 1]!;
      return next;
    };
  }

  #alu32(i: Instruction, { op, source }: Of<"alu">): Step {
    const w = this.#w;
    const d = 2 * i.dst;
    const s = 2 * i.src;
    const next = i.index + 1;
    const compute = ALU32[op];
    if (source === "reg") {
      return () => {
        w[d] = compute(w[d]!, w[s]!);
        w[d + 1] = 0;
        return next;
      };
    }
    const b = i.imm >>> 0;
    return () => {
      w[d] = compute(w[d]!, b);
      w[d + 1] = 0;
      return next;
    };
  }

  #movsx(i: Instruction, { from, bits }: Of<"movsx">): Step {
    const { dst, src } = i;
    const r = this.#r;
    return () => {
      const extended = BigInt.asIntN(from, r[src]!);
      r[dst] = bits === 64 ? extended : BigInt.asUintN(32, extended);
      return i.index + 1;
    };
  }

  #neg(i: Instruction, { bits }: Of<"neg">): Step {
    const r = this.#r;
    return () => {
      r[i.dst] = BigInt.asUintN(bits, -r[i.dst]!);
      return i.index + 1;
    };
  }

  #swap(i: Instruction, { to, width }: Of<"swap">): Step {
    const r = this.#r;
    return () => {
      // The machine is little endian, so "le" only truncates.
      r[i.dst] = to === "le" ? BigInt.asUintN(width, r[i.dst]!) : swapBytes(r[i.dst]!, width / 8);
      return i.index + 1;
    };
  }

  #jump64(i: Instruction, { op, source }: Of<"jump">): Step {
    const r = this.#r;
    const { dst, src } = i;
    const holds = JUMP64[op];
    const target = targetOf(i)!;
    const next = i.index + 1;
    if (source === "reg") return () => (holds(r[dst]!, r[src]!) ? target : next);
    const b = BigInt.asUintN(64, BigInt(i.imm));
    return () => (holds(r[dst]!, b) ? target : next);
  }

  #jump32(i: Instruction, { op, source }: Of<"jump">): Step {
    const w = this.#w;
    const d = 2 * i.dst;
    const s = 2 * i.src;
    const holds = JUMP32[op];
    const target = targetOf(i)!;
    const next = i.index + 1;
    if (source === "reg") return () => (holds(w[d]!, w[s]!) ? target : next);
    const b = i.imm >>> 0;
    return () => (holds(w[d]!, b) ? target : next);
  }

  #call(i: Instruction, { target }: Of<"call">): Step {
    switch (target) {
      case "helper":
        return () => this.#callHelper(i.imm >>> 0, i.index);
      case "register":
        return () => this.#callHelper(this.#w[2 * i.dst]!, i.index);
      case "local":
        return () => this.#callLocal(i.index, targetOf(i)!);
      case "btf":
        throw new EbpfError("UNSUPPORTED", "calls by BTF id need the kernel", i.index);
    }
  }

  #callHelper(number: number, index: number): number {
    const helper = this.#helpers.get(number);
    if (helper === undefined) throw noHelper(number, index);
    const r = this.#r;
    r[0] = helper(r[1]!, r[2]!, r[3]!, r[4]!, r[5]!);
    return this.#unwinds(number, r[0]) ? DONE : index + 1;
  }

  #callLocal(index: number, target: number): number {
    if (this.#depth + 1 === MAX_FRAMES) throw tooDeep(index);
    const frame = this.#frames[this.#depth]!;
    for (let n = 0; n < SAVED; n++) frame.saved[n] = this.#r[1 + n]!;
    frame.back = index + 1;
    this.#depth++;
    this.#enterFrame();
    return target;
  }

  #exit(): number {
    if (this.#depth === 0) return DONE;
    this.#depth--;
    const frame = this.#frames[this.#depth]!;
    for (let n = 0; n < SAVED; n++) this.#r[1 + n] = frame.saved[n]!;
    const top = this.#stack.end - this.#depth * STACK_SIZE;
    this.#stack.start = top - STACK_SIZE;
    this.#r[FRAME_POINTER] = BigInt(top);
    return frame.back;
  }

  /**
   * Returns the address of an access as a number: exact below
   * 2^53, and otherwise above every region.
   */
  #address(register: number, offset: number): number {
    return this.#w[2 * register + 1]! * TWO_32 + this.#w[2 * register]! + offset;
  }

  #load(i: Instruction, { size, signed }: Of<"load">): Step {
    const { dst, src, offset, index } = i;
    if (signed) return this.#loadSigned(i, size);
    const r = this.#r;
    const w = this.#w;
    const next = index + 1;
    if (size === 8) {
      return () => {
        const address = this.#address(src, offset);
        const region = this.#readable(address, 8, index);
        const at = address - region.base;
        r[dst] = (at & 7) === 0 ? region.u64[at / 8]! : region.view.getBigUint64(at, true);
        return next;
      };
    }
    return () => {
      const address = this.#address(src, offset);
      const region = this.#readable(address, size, index);
      w[2 * dst] = readBytes(region, address - region.base, size);
      w[2 * dst + 1] = 0;
      return next;
    };
  }

  #loadSigned(i: Instruction, size: AccessSize): Step {
    return () => {
      const address = this.#address(i.src, i.offset);
      const region = this.#readable(address, size, i.index);
      const value = readBytes(region, address - region.base, size);
      this.#r[i.dst] = BigInt.asIntN(8 * size, BigInt(value));
      return i.index + 1;
    };
  }

  #store(i: Instruction, { size, source }: Of<"store">): Step {
    const { dst, src, offset, index } = i;
    const r = this.#r;
    const w = this.#w;
    const next = index + 1;
    const fixed = source === "imm";
    if (size === 8) {
      const wide = BigInt.asUintN(64, BigInt(i.imm));
      return () => {
        const address = this.#address(dst, offset);
        const region = this.#writable(address, 8, index);
        const at = address - region.base;
        const value = fixed ? wide : r[src]!;
        if ((at & 7) === 0) region.u64[at / 8] = value;
        else region.view.setBigUint64(at, value, true);
        return next;
      };
    }
    return () => {
      const address = this.#address(dst, offset);
      const region = this.#writable(address, size, index);
      writeBytes(region, address - region.base, size, fixed ? i.imm : w[2 * src]!);
      return next;
    };
  }

  #atomic32(i: Instruction, { op }: Of<"atomic">): Step {
    const w = this.#w;
    const s = 2 * i.src;
    const fetches = fetchesIntoSrc(i);
    const modify = op === "cmpxchg" ? undefined : ATOMIC32[plainAtomic(op)];
    return () => {
      const address = this.#address(i.dst, i.offset);
      const region = this.#atomicRegion(address, 4, i.index);
      const at = (address - region.base) / 4;
      if (modify === undefined) {
        w[0] = Atomics.compareExchange(region.i32, at, w[0]! | 0, w[s]! | 0);
        w[1] = 0;
        return i.index + 1;
      }
      const old = modify(region.i32, at, w[s]! | 0);
      if (fetches) {
        w[s] = old;
        w[s + 1] = 0;
      }
      return i.index + 1;
    };
  }

  #atomic64(i: Instruction, { op }: Of<"atomic">): Step {
    const r = this.#r;
    const fetches = fetchesIntoSrc(i);
    const modify = op === "cmpxchg" ? undefined : ATOMIC64[plainAtomic(op)];
    return () => {
      const address = this.#address(i.dst, i.offset);
      const region = this.#atomicRegion(address, 8, i.index);
      const at = (address - region.base) / 8;
      if (modify === undefined) {
        r[0] = Atomics.compareExchange(region.u64, at, r[0]!, r[i.src]!);
        return i.index + 1;
      }
      const old = modify(region.u64, at, r[i.src]!);
      if (fetches) r[i.src] = old;
      return i.index + 1;
    };
  }

  #wide(i: Instruction, { value }: Of<"wide">): Step {
    if (value !== "value") {
      throw new EbpfError("UNSUPPORTED", `a 64-bit load of ${value} needs a loader`, i.index);
    }
    const constant = wideValue(i);
    return () => {
      this.#r[i.dst] = constant;
      return i.index + 2;
    };
  }

  #readable(address: number, size: AccessSize, index: number): MappedRegion {
    const region = this.memory.find(address, size);
    if (region === undefined) throw outside(this.memory, "load", address, size, index);
    return region;
  }

  #writable(address: number, size: AccessSize, index: number): MappedRegion {
    const region = this.memory.find(address, size);
    if (region === undefined) throw outside(this.memory, "store", address, size, index);
    if (!region.writable) throw readOnly(region, index);
    return region;
  }

  #atomicRegion(address: number, size: 4 | 8, index: number): MappedRegion {
    const region = this.#writable(address, size, index);
    if (address % size !== 0) throw misaligned(size, index);
    return region;
  }
}

function readBytes(region: MappedRegion, at: number, size: AccessSize): number {
  if (size === 4) return (at & 3) === 0 ? region.i32[at >> 2]! : region.view.getUint32(at, true);
  if (size === 2) return (at & 1) === 0 ? region.u16[at >> 1]! : region.view.getUint16(at, true);
  return region.u8[at]!;
}

function writeBytes(region: MappedRegion, at: number, size: AccessSize, value: number): void {
  if (size === 4) {
    if ((at & 3) === 0) region.i32[at >> 2] = value;
    else region.view.setUint32(at, value, true);
  } else if (size === 2) {
    if ((at & 1) === 0) region.u16[at >> 1] = value;
    else region.view.setUint16(at, value, true);
  } else region.u8[at] = value;
}

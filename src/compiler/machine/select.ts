/**
 * Instruction selection: SSA to machine code on virtual
 * registers. Phis become copies at block ends.
 */
import type { AluOp, JumpOp, Operation } from "../../ebpf/opcode.ts";
import { commutes, widthOf } from "../fold.ts";
import { type Block, type Func, successors, type Terminator, type Value } from "../ir.ts";
import { type Dominators, dominates, dominators } from "../passes/dominators.ts";
import {
  type MachineBlock,
  type MachineFunction,
  type MachineInstruction,
  VIRTUAL,
} from "./code.ts";

const FRAME_POINTER = 10;

/** Comparisons with exchanged operands. */
const MIRRORED: Readonly<Partial<Record<JumpOp, JumpOp>>> = {
  ...{ gt: "lt", lt: "gt", ge: "le", le: "ge", sgt: "slt", slt: "sgt", sge: "sle", sle: "sge" },
  ...{ eq: "eq", ne: "ne", set: "set" },
};

type Branch = Extract<Terminator, { kind: "branch" }>;
const alu = (op: AluOp, bits: 32 | 64, source: "imm" | "reg"): Operation => ({
  kind: "alu",
  op,
  bits,
  source,
});
const MOVE = alu("mov", 64, "reg");

/**
 * Returns a constant as an immediate of an instruction that works
 * on `bits`; undefined if it does not fit.
 */
export function immediate(value: bigint, bits: 32 | 64): number | undefined {
  const signed = BigInt.asIntN(bits, value);
  return BigInt.asIntN(32, signed) === signed ? Number(signed) : undefined;
}

/** @param functions functions of the program; calls name them by index */
export function select(func: Func, functions: readonly Func[]): MachineFunction {
  return new Selector(func, functions).run();
}

class Selector {
  readonly #func: Func;
  readonly #functions: readonly Func[];
  readonly #out: MachineFunction;
  readonly #blocks = new Map<Block, MachineBlock>();
  readonly #registers = new Map<Value, number>();
  readonly #uses = new Map<Value, number>();
  /** Unnecessary truncations: all readers use the low half only. */
  readonly #low = new Set<Value>();
  /** Masks that were fused into a jump. */
  readonly #fused = new Set<Value>();
  readonly #dominators: Dominators;
  #block: MachineBlock;
  #at = 0;
  #id = 0;

  constructor(func: Func, functions: readonly Func[]) {
    this.#func = func;
    this.#functions = functions;
    this.#dominators = dominators(func);
    const blocks = func.blocks.map((block) => {
      const made = this.#newBlock(block.end?.at ?? 0);
      this.#blocks.set(block, made);
      return made;
    });
    const entry = this.#blocks.get(func.entry)!;
    this.#out = { name: func.name, entry, blocks, stack: func.stack, nextRegister: VIRTUAL };
    this.#block = entry;
  }

  run(): MachineFunction {
    this.#countUses();
    for (const block of this.#func.blocks) {
      this.#block = this.#blocks.get(block)!;
      for (const value of block.values) {
        this.#at = value.at;
        this.#value(value);
      }
      this.#terminator(block);
    }
    return this.#out;
  }

  #newBlock(at: number): MachineBlock {
    return { id: this.#id++, code: [], at };
  }

  #countUses(): void {
    const wide = new Set<Value>();
    const use = (value: Value, low: boolean): void => {
      this.#uses.set(value, (this.#uses.get(value) ?? 0) + 1);
      if (!low) wide.add(value);
    };
    for (const { values, end } of this.#func.blocks) {
      for (const v of values) {
        const low = (v.bits === 32 && isAlu(v)) || (v.op === "store" && v.size <= 4);
        v.args.forEach((arg, i) => {
          use(arg, low && !(v.op === "store" && i === 0));
        });
      }
      // The driver reads the low half of a program's result. A
      // caller reads all of a function's result.
      if (end?.kind === "return") use(end.value, this.#functions[0] === this.#func);
      if (end?.kind === "branch") {
        use(end.a, end.bits === 32);
        use(end.b, end.bits === 32);
      }
    }
    for (const { values, end } of this.#func.blocks) {
      for (const v of values) if (v.op === "trunc" && !wide.has(v)) this.#low.add(v);
      if (end?.kind === "branch" && this.#isMaskTest(end)) this.#fused.add(end.a);
    }
  }

  /** Matches `(x & m) !== 0` with a mask that has no other reader. */
  #isMaskTest({ op, a, b }: Branch): boolean {
    const zero = b.op === "const" && b.imm === 0n && (op === "eq" || op === "ne");
    if (!zero || a.op !== "and" || this.#uses.get(a) !== 1) return false;
    const mask = a.args[1]!;
    return mask.op === "const" && immediate(mask.imm, 64) !== undefined;
  }

  #register(value: Value): number {
    let register = this.#registers.get(value);
    if (register === undefined) {
      register = this.#out.nextRegister++;
      this.#registers.set(value, register);
    }
    return register;
  }

  #emit(operation: Operation, fields: Partial<MachineInstruction> = {}): void {
    const base = { dst: 0, src: 0, imm: 0, offset: 0, high: 0, at: this.#at };
    this.#block.code.push({ operation, ...base, ...fields });
  }

  #move(dst: number, src: number): void {
    this.#emit(MOVE, { dst, src });
  }

  /** Emits dst = constant by the shortest sequence. */
  #constant(dst: number, imm: bigint): void {
    const short = immediate(imm, 64);
    if (short !== undefined) this.#emit(alu("mov", 64, "imm"), { dst, imm: short });
    else if (imm <= 0xffff_ffffn) {
      this.#emit(alu("mov", 32, "imm"), { dst, imm: Number(BigInt.asIntN(32, imm)) });
    } else {
      const low = Number(BigInt.asIntN(32, imm));
      const high = Number(BigInt.asIntN(32, imm >> 32n));
      this.#emit({ kind: "wide", value: "value" }, { dst, imm: low, high });
    }
  }

  /** Returns the register of a value. Constants are materialised at their use. */
  #read(value: Value): number {
    if (value.op !== "const") return this.#register(value);
    const register = this.#out.nextRegister++;
    this.#constant(register, value.imm);
    return register;
  }

  /** Emits dst = value. */
  #copy(dst: number, value: Value): void {
    if (value.op === "const") this.#constant(dst, value.imm);
    else this.#move(dst, this.#register(value));
  }

  /** Returns base register and offset of a memory access. Offsets have 16 bits. */
  #address(base: Value, offset: number): { base: number; offset: number } {
    const register = this.#register(base);
    if (offset >= -0x8000 && offset <= 0x7fff) return { base: register, offset };
    const far = this.#out.nextRegister++;
    this.#move(far, register);
    this.#emit(alu("add", 64, "imm"), { dst: far, imm: offset });
    return { base: far, offset: 0 };
  }

  #value(value: Value): void {
    switch (value.op) {
      case "const":
      case "phi":
        return;
      case "context":
      case "param":
        return this.#move(this.#register(value), 1 + Number(value.imm));
      case "stack":
        this.#move(this.#register(value), FRAME_POINTER);
        return this.#emit(alu("add", 64, "imm"), { dst: this.#register(value), imm: value.offset });
      case "trunc":
        return this.#truncate(value);
      case "swap":
        this.#copy(this.#register(value), value.args[0]!);
        // To big endian: a swap on little-endian guests, and part of every ISA version.
        return this.#emit(
          { kind: "swap", to: "be", width: (value.size * 8) as 16 | 32 | 64 },
          { dst: this.#register(value) },
        );
      case "load":
        return this.#load(value);
      case "store":
        return this.#store(value);
      case "atomic":
        return this.#atomic(value);
      case "call":
        return this.#call(value);
      default:
        if (!this.#fused.has(value)) this.#binary(value);
    }
  }

  #truncate(value: Value): void {
    const [arg] = value.args as [Value];
    const dst = this.#register(value);
    if (this.#low.has(value)) this.#copy(dst, arg);
    else this.#emit(alu("mov", 32, "reg"), { dst, src: this.#read(arg) });
  }

  #load(value: Value): void {
    const { base, offset } = this.#address(value.args[0]!, value.offset);
    const dst = this.#register(value);
    this.#emit({ kind: "load", size: value.size, signed: false }, { dst, src: base, offset });
  }

  #store(value: Value): void {
    const [pointer, stored] = value.args as [Value, Value];
    const { base, offset } = this.#address(pointer, value.offset);
    const { size } = value;
    const imm = stored.op === "const" ? immediate(stored.imm, size === 8 ? 64 : 32) : undefined;
    if (imm !== undefined) {
      this.#emit({ kind: "store", size, source: "imm" }, { dst: base, offset, imm });
    } else {
      const src = this.#read(stored);
      this.#emit({ kind: "store", size, source: "reg" }, { dst: base, offset, src });
    }
  }

  #atomic(value: Value): void {
    const [pointer, operand, expected] = value.args as [Value, Value, Value?];
    const { base, offset } = this.#address(pointer, value.offset);
    const operation: Operation = {
      kind: "atomic",
      op: value.atomic!,
      bits: value.size === 8 ? 64 : 32,
    };
    const result = this.#register(value);
    if (expected === undefined) {
      this.#copy(result, operand);
      this.#emit(operation, { dst: base, src: result, offset });
      return;
    }
    const src = this.#read(operand);
    this.#copy(0, expected);
    this.#emit(operation, { dst: base, src, offset });
    this.#move(result, 0);
  }

  #call(value: Value): void {
    const args = value.args.map((_, i) => i + 1);
    const sources = value.args.map((arg) => (arg.op === "const" ? -1 : this.#register(arg)));
    value.args.forEach((arg, i) => {
      if (sources[i] === -1) this.#constant(i + 1, arg.imm);
      else this.#move(i + 1, sources[i]!);
    });
    if (value.callee === undefined) {
      const imm = Number(BigInt.asIntN(32, value.imm));
      this.#emit({ kind: "call", target: "helper" }, { imm, args });
    } else {
      const callee = this.#functions.indexOf(value.callee);
      this.#emit({ kind: "call", target: "local" }, { callee, args });
    }
    this.#move(this.#register(value), 0);
  }

  #binary(value: Value): void {
    let [a, b] = value.args as [Value, Value];
    const op = (value.op === "depend" ? "xor" : value.op) as AluOp;
    const dst = this.#register(value);
    const lives = (v: Value): boolean => v.op === "const" || (this.#uses.get(v) ?? 0) > 1;
    // The first operand is overwritten: prefer the one without later readers.
    if (commutes(op) && b.op !== "const" && lives(a) && !lives(b)) [a, b] = [b, a];
    if (op === "sub" && a.op === "const" && a.imm === 0n) {
      this.#copy(dst, b);
      return this.#emit({ kind: "neg", bits: value.bits }, { dst });
    }
    const imm = b.op === "const" ? immediate(b.imm, value.bits) : undefined;
    // Materialise a constant before dst is written: both may get the same register.
    const src = imm === undefined ? this.#read(b) : 0;
    this.#copy(dst, a);
    if (imm !== undefined) this.#emit(alu(op, value.bits, "imm"), { dst, imm });
    else this.#emit(alu(op, value.bits, "reg"), { dst, src });
  }

  #terminator(block: Block): void {
    const { end } = block;
    this.#at = end?.at ?? 0;
    if (end?.kind === "return") {
      this.#copy(0, end.value);
      this.#emit({ kind: "exit" });
    } else if (end?.kind === "jump") {
      this.#phiCopies(block, end.to);
      this.#block.next = this.#blocks.get(end.to)!;
    } else if (end?.kind === "branch") {
      const jump = this.#jump(end);
      const from = this.#block;
      from.taken = this.#edge(block, end.then);
      this.#block = from;
      from.next = this.#edge(block, end.else);
      from.jump = jump;
    }
  }

  /**
   * Returns the target block of a branch. A critical edge gets
   * its own block, for the copies of phis.
   */
  #edge(from: Block, to: Block): MachineBlock {
    const target = this.#blocks.get(to)!;
    if (this.#setsOneConstant(from, to)) {
      this.#phiCopies(from, to);
      return target;
    }
    if (!to.values.some((v) => v.op === "phi") || successors(from).length < 2) return target;
    this.#block = this.#newBlock(this.#at);
    this.#out.blocks.push(this.#block);
    this.#phiCopies(from, to);
    this.#block.next = target;
    return this.#block;
  }

  /**
   * Returns true if the phi's one constant may be set before the jump, without a block of its own:
   * no instruction can read the phi, unless its block dominates this one.
   */
  #setsOneConstant(from: Block, to: Block): boolean {
    const phis = to.values.filter((v) => v.op === "phi");
    const arg = phis[0]?.args[to.preds.indexOf(from)];
    return phis.length === 1 && arg?.op === "const" && !dominates(this.#dominators, to, from);
  }

  #jump(branch: Branch): MachineInstruction {
    let { op, a, b } = branch;
    if (this.#fused.has(a)) {
      const [x, mask] = a.args as [Value, Value];
      // JSET has no inverse, so the successors are exchanged.
      if (op === "eq") [branch.then, branch.else] = [branch.else, branch.then];
      return this.#compare("set", 64, x, mask);
    }
    const counter = a.op === "add" || a.op === "phi";
    // Verifiers track a counter's value, and judge best if the second operand is known.
    if (a.op === "const" || (counter && b.op !== "const" && b.op !== "add" && b.op !== "phi")) {
      [a, b, op] = [b, a, MIRRORED[op]!];
    }
    return this.#compare(op, branch.bits, a, b);
  }

  #compare(op: JumpOp, wanted: 32 | 64, a: Value, b: Value): MachineInstruction {
    let bits = wanted;
    let imm = b.op === "const" ? immediate(b.imm, bits) : undefined;
    if (b.op === "const" && imm === undefined && bits === 64 && widthOf(a) <= 32) {
      // A u32 above the signed immediates: compare the low halves.
      if (b.imm <= 0xffff_ffffn && !op.startsWith("s")) {
        bits = 32;
        imm = immediate(b.imm, 32);
      }
    }
    const dst = this.#read(a);
    const base = { offset: 0, high: 0, at: this.#at, dst };
    if (imm !== undefined) {
      return { operation: { kind: "jump", op, bits, source: "imm" }, ...base, src: 0, imm };
    }
    const src = this.#read(b);
    return { operation: { kind: "jump", op, bits, source: "reg" }, ...base, src, imm: 0 };
  }

  /** Copies all phis of `to` in parallel: a copy waits until its target has no more readers. */
  #phiCopies(from: Block, to: Block): void {
    const index = to.preds.indexOf(from);
    let waiting: { dst: number; value: Value; src: number }[] = [];
    for (const phi of to.values) {
      if (phi.op !== "phi") break;
      const value = phi.args[index]!;
      const dst = this.#register(phi);
      const src = value.op === "const" ? -1 : this.#register(value);
      if (src !== dst) waiting.push({ dst, value, src });
    }
    while (waiting.length > 0) {
      const ready = waiting.find((m) => !waiting.some((o) => o !== m && o.src === m.dst));
      if (ready === undefined) {
        // A cycle of copies: save one value first.
        const [first] = waiting;
        const aside = this.#out.nextRegister++;
        this.#move(aside, first!.src);
        first!.src = aside;
        continue;
      }
      if (ready.src === -1) this.#copy(ready.dst, ready.value);
      else this.#move(ready.dst, ready.src);
      waiting = waiting.filter((m) => m !== ready);
    }
  }
}

function isAlu(value: Value): boolean {
  return !["load", "store", "atomic", "call", "phi", "trunc"].includes(value.op);
}

/**
 * Builds SSA while walking the source: local variables become values at once,
 * and phis are placed at joins (Braun et al., "Simple and Efficient Construction
 * of Static Single Assignment Form", 2013).
 */
import type { AtomicOp, JumpOp } from "../ebpf/opcode.ts";
import { compares, fold } from "./fold.ts";
import {
  type AccessBytes,
  type BinaryOp,
  type Bits,
  type Block,
  type Func,
  type Op,
  resolve,
  type Terminator,
  type Value,
} from "./ir.ts";

/** A local variable. An object, because each inlined copy of a function has its own. */
export interface Variable {
  readonly name: string;
  readonly bits: Bits;
}

interface Extra {
  readonly imm?: bigint;
  readonly offset?: number;
  readonly size?: AccessBytes;
  readonly atomic?: AtomicOp;
  readonly callee?: Func;
}

/** A comparison of two values. */
export interface Comparison {
  readonly op: JumpOp;
  readonly bits: Bits;
  readonly a: Value;
  readonly b: Value;
}

export class Builder {
  readonly func: Func;
  /**
   * The block that receives the next value; undefined after a jump: what follows is unreachable.
   */
  block: Block | undefined;
  /** Start of the current file among the positions of all files. */
  origin = 0;
  #at = 0;
  readonly #definitions = new Map<Block, Map<Variable, Value>>();
  readonly #sealed = new Set<Block>();
  readonly #incomplete = new Map<Block, Map<Variable, Value>>();

  /** @param at position of the function in the concatenation of all files */
  constructor(name: string, at: number) {
    const entry: Block = { id: 0, values: [], preds: [] };
    this.func = { name, at, entry, blocks: [entry], stack: 0, nextValue: 0, nextBlock: 1 };
    this.block = entry;
    this.#sealed.add(entry);
  }

  /** Sets the position of the next values, as an offset in the current file. */
  set at(offset: number) {
    this.#at = this.origin + offset;
  }

  newBlock(): Block {
    const block: Block = { id: this.func.nextBlock++, values: [], preds: [] };
    this.func.blocks.push(block);
    return block;
  }

  /** Continues in `block`, whose predecessors are all known. */
  enter(block: Block): void {
    this.seal(block);
    this.enterUnsealed(block);
  }

  /** Continues in `block`, which gets another predecessor later: `seal` must follow. */
  enterUnsealed(block: Block): void {
    this.block = block.preds.length > 0 ? block : undefined;
  }

  jump(to: Block): void {
    this.#end({ kind: "jump", to, at: this.#at }, [to]);
  }

  /**
   * Ends the block with a branch. A comparison of constants becomes a
   * jump, so that the other side is not built.
   */
  branch(c: Comparison, then: Block, otherwise: Block): void {
    const a = resolve(c.a);
    const b = resolve(c.b);
    if (a.op === "const" && b.op === "const") {
      this.jump(compares(c.op, c.bits, a.imm, b.imm) ? then : otherwise);
    } else {
      const end = { kind: "branch", op: c.op, bits: c.bits, a, b, then, else: otherwise } as const;
      this.#end({ ...end, at: this.#at }, [then, otherwise]);
    }
  }

  return(value: Value): void {
    this.#end({ kind: "return", value, at: this.#at }, []);
  }

  constant(imm: bigint): Value {
    return this.#append("const", 64, [], { imm: BigInt.asUintN(64, imm) });
  }

  binary(op: BinaryOp, bits: Bits, left: Value, right: Value): Value {
    const a = resolve(left);
    const b = resolve(right);
    const simpler = fold(op, bits, a, b);
    if (simpler === undefined) return this.#append(op, bits, [a, b]);
    if ("value" in simpler) return simpler.value;
    if ("constant" in simpler) return this.constant(simpler.constant);
    const second = typeof simpler.b === "bigint" ? this.constant(simpler.b) : simpler.b;
    const changed = simpler.op !== op || simpler.a !== a || second !== b;
    return changed && !(simpler.a === b && second === a)
      ? this.binary(simpler.op, bits, simpler.a, second)
      : this.#append(simpler.op, bits, [simpler.a, second]);
  }

  make(op: Op, bits: Bits, args: readonly Value[], extra: Extra = {}): Value {
    return this.#append(op, bits, args.map(resolve), extra);
  }

  write(variable: Variable, value: Value): void {
    if (this.block !== undefined) this.#define(this.block, variable, value);
  }

  read(variable: Variable): Value {
    return this.block === undefined ? this.constant(0n) : this.#read(variable, this.block);
  }

  /** Declares that all predecessors of `block` are known. */
  seal(block: Block): void {
    if (this.#sealed.has(block)) return;
    this.#sealed.add(block);
    for (const [variable, phi] of this.#incomplete.get(block) ?? []) {
      this.#addOperands(variable, phi);
    }
  }

  #end(end: Terminator, targets: readonly Block[]): void {
    if (this.block === undefined) return;
    this.block.end = end;
    for (const target of targets) target.preds.push(this.block);
    this.block = undefined;
  }

  #value(op: Op, bits: Bits, args: Value[], extra: Extra, block: Block): Value {
    const { imm = 0n, offset = 0, size = 8, atomic, callee } = extra;
    // One literal: every value has the same hidden class.
    const id = this.func.nextValue++;
    const at = this.#at;
    return { id, op, bits, args, imm, offset, size, atomic, callee, block, at, same: undefined };
  }

  #append(op: Op, bits: Bits, args: Value[], extra: Extra = {}): Value {
    // Unreachable code is built into a block without predecessors, and dropped.
    const block = this.block ?? { id: -1, values: [], preds: [] };
    const value = this.#value(op, bits, args, extra, block);
    block.values.push(value);
    return value;
  }

  #define(block: Block, variable: Variable, value: Value): void {
    tableOf(this.#definitions, block).set(variable, value);
  }

  #read(variable: Variable, block: Block): Value {
    const known = this.#definitions.get(block)?.get(variable);
    if (known !== undefined) return resolve(known);
    let value: Value;
    if (!this.#sealed.has(block)) {
      value = this.#phi(variable, block);
      tableOf(this.#incomplete, block).set(variable, value);
    } else if (block.preds.length === 1) {
      value = this.#read(variable, block.preds[0]!);
    } else {
      const phi = this.#phi(variable, block);
      this.#define(block, variable, phi);
      value = this.#addOperands(variable, phi);
    }
    this.#define(block, variable, value);
    return value;
  }

  #phi(variable: Variable, block: Block): Value {
    const phi = this.#value("phi", variable.bits, [], {}, block);
    const first = block.values.findIndex((v) => v.op !== "phi");
    block.values.splice(first < 0 ? block.values.length : first, 0, phi);
    return phi;
  }

  #addOperands(variable: Variable, phi: Value): Value {
    phi.args = phi.block.preds.map((pred) => this.#read(variable, pred));
    return simplifyPhi(phi);
  }
}

type Table = Map<Variable, Value>;

function tableOf(tables: Map<Block, Table>, block: Block): Table {
  let table = tables.get(block);
  if (table === undefined) {
    table = new Map();
    tables.set(block, table);
  }
  return table;
}

/** Replaces a phi whose arguments are all the same value (or itself) by that value. */
export function simplifyPhi(phi: Value): Value {
  let same: Value | undefined;
  for (const arg of phi.args) {
    const value = resolve(arg);
    if (value === phi || value === same) continue;
    if (same !== undefined && !sameConstant(same, value)) return phi;
    same ??= value;
  }
  if (same === undefined) return phi;
  phi.same = same;
  return same;
}

function sameConstant(a: Value, b: Value): boolean {
  return a.op === "const" && b.op === "const" && a.imm === b.imm;
}

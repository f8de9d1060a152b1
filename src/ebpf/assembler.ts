/**
 * Builds programs in TypeScript:
 *
 *     const p = new Assembler();
 *     p.load(R2, R1, CONTEXT.num_bufs);
 *     p.jump.eq(R2, 0, "none");
 *     p.alu64.mov(R0, 1).exit();
 *     p.label("none").alu64.mov(R0, 0).exit();
 *     const code = p.assemble();
 */
import type { Field } from "../abi/layout.ts";
import { EbpfError } from "./errors.ts";
import { encodeProgram, type Fields, type Instruction, makeInstruction } from "./instruction.ts";
import {
  ALU_OPS,
  type AluOp,
  ATOMIC_OPS,
  type AtomicOp,
  type Bits,
  JUMP_OPS,
  type JumpOp,
  type Operation,
  type SwapTo,
} from "./opcode.ts";
import { checkStructure } from "./structure.ts";

/** A register operand. An object, so that the type checker tells it from an immediate. */
export interface Register {
  readonly register: number;
}

const register = (n: number): Register => Object.freeze({ register: n });
export const R0 = register(0);
export const R1 = register(1);
export const R2 = register(2);
export const R3 = register(3);
export const R4 = register(4);
export const R5 = register(5);
export const R6 = register(6);
export const R7 = register(7);
export const R8 = register(8);
export const R9 = register(9);
/** Frame pointer, read-only. */
export const R10 = register(10);

/** A register or a signed 32-bit immediate. */
export type Operand = Register | number;

type AluBuilder = Readonly<Record<AluOp, (dst: Register, operand: Operand) => Assembler>>;
type JumpBuilder = Readonly<
  Record<JumpOp, (dst: Register, operand: Operand, label: string) => Assembler>
>;
type AtomicBuilder = Readonly<
  Record<AtomicOp, (base: Register, field: Field, src: Register) => Assembler>
>;

interface Pending {
  readonly operation: Operation;
  readonly operands: Partial<Fields>;
  readonly index: number;
  readonly label?: string;
}

function second(operand: Operand): { source: "imm" | "reg"; fields: Partial<Fields> } {
  return typeof operand === "number"
    ? { source: "imm", fields: { imm: operand } }
    : { source: "reg", fields: { src: operand.register } };
}

function builders<K extends string, F>(table: Readonly<Record<K, unknown>>, make: (op: K) => F) {
  return Object.fromEntries((Object.keys(table) as K[]).map((op) => [op, make(op)])) as Record<
    K,
    F
  >;
}

export class Assembler {
  /** 64-bit arithmetic: `p.alu64.add(R1, R2)`, `p.alu64.and(R1, 255)`. */
  readonly alu64: AluBuilder = this.#alu(64);
  /** 32-bit arithmetic. The upper half of the result is zero. */
  readonly alu32: AluBuilder = this.#alu(32);
  /** Conditional jumps on all 64 bits: `p.jump.ne(R1, 0, "label")`. */
  readonly jump: JumpBuilder = this.#jump(64);
  /** Conditional jumps on the low 32 bits. */
  readonly jump32: JumpBuilder = this.#jump(32);
  /** Atomics on 4 or 8 bytes: `p.atomic.fetch_add(R1, FIELD, R2)`; `cmpxchg` compares with R0. */
  readonly atomic: AtomicBuilder = builders(
    ATOMIC_OPS,
    (op) => (base: Register, field: Field, src: Register) => {
      if (field.width < 4) this.#fail(`atomics take 4 or 8 bytes, not ${field.width}`);
      const bits: Bits = field.width === 8 ? 64 : 32;
      const { offset } = field;
      return this.#add(
        { kind: "atomic", op, bits },
        { dst: base.register, src: src.register, offset },
      );
    },
  );
  readonly #pending: Pending[] = [];
  readonly #labels = new Map<string, number>();
  #slots = 0;

  /** Number of slots (8-byte units) so far. */
  get length(): number {
    return this.#slots;
  }

  /** Names the next instruction as a jump target. */
  label(name: string): this {
    if (this.#labels.has(name)) this.#fail(`label "${name}" is defined twice`);
    this.#labels.set(name, this.#slots);
    return this;
  }

  /** Emits dst = *(field at `base`), zero extended. */
  load(dst: Register, base: Register, field: Field): this {
    return this.#load(dst, base, field, false);
  }

  /** Emits the same, sign extended to 64 bits. */
  loadSigned(dst: Register, base: Register, field: Field): this {
    if (field.width === 8) this.#fail("there is no sign-extending load of 8 bytes");
    return this.#load(dst, base, field, true);
  }

  /** Emits *(field at `base`) = register or immediate. */
  store(base: Register, field: Field, operand: Operand): this {
    const { source, fields } = second(operand);
    return this.#add(
      { kind: "store", size: field.width, source },
      { ...fields, dst: base.register, offset: field.offset },
    );
  }

  /** Emits dst = 64-bit constant, in two slots. */
  load64(dst: Register, value: bigint): this {
    const v = BigInt.asUintN(64, value);
    return this.#add(
      { kind: "wide", value: "value" },
      {
        dst: dst.register,
        imm: Number(BigInt.asIntN(32, v)),
        high: Number(BigInt.asIntN(32, v >> 32n)),
      },
    );
  }

  neg(dst: Register, bits: Bits = 64): this {
    return this.#add({ kind: "neg", bits }, { dst: dst.register });
  }

  /** Emits dst = src, sign extended from `from` bits. */
  moveSigned(dst: Register, src: Register, from: 8 | 16 | 32, bits: Bits = 64): this {
    return this.#add({ kind: "movsx", from, bits }, { dst: dst.register, src: src.register });
  }

  /** Converts the byte order: to little endian, to big endian, or swapped unconditionally. */
  swap(dst: Register, to: SwapTo, width: 16 | 32 | 64): this {
    return this.#add({ kind: "swap", to, width }, { dst: dst.register });
  }

  goto(label: string): this {
    return this.#add({ kind: "goto", long: false }, {}, label);
  }

  /** Emits a jump with a 32-bit distance. */
  gotoLong(label: string): this {
    return this.#add({ kind: "goto", long: true }, {}, label);
  }

  /** Calls a helper by number. */
  call(helper: number): this {
    return this.#add({ kind: "call", target: "helper" }, { imm: helper | 0 });
  }

  /** Calls a function of the program. */
  callLocal(label: string): this {
    return this.#add({ kind: "call", target: "local" }, {}, label);
  }

  /** Calls the function whose address is in a register. */
  callRegister(target: Register): this {
    return this.#add({ kind: "call", target: "register" }, { dst: target.register });
  }

  exit(): this {
    return this.#add({ kind: "exit" }, {});
  }

  /** Emits any other instruction, from its operation and operand fields. */
  emit(operation: Operation, operands: Partial<Fields>): this {
    return this.#add(operation, operands);
  }

  /**
   * Resolves labels and checks the structure.
   * @throws EbpfError ASSEMBLY for unknown labels and distances
   * out of range, STRUCTURE for other errors
   */
  instructions(): Instruction[] {
    const list = this.#pending.map((p) =>
      makeInstruction(p.operation, { ...p.operands, ...this.#distance(p) }, p.index),
    );
    checkStructure(list);
    return list;
  }

  /** @returns the code, 8 bytes a slot. */
  assemble(): Uint8Array {
    return encodeProgram(this.instructions());
  }

  #distance(pending: Pending): Partial<Fields> {
    if (pending.label === undefined) return {};
    const target = this.#labels.get(pending.label);
    if (target === undefined) {
      throw new EbpfError("ASSEMBLY", `label "${pending.label}" is not defined`, pending.index);
    }
    const distance = target - pending.index - 1;
    const { operation } = pending;
    const inImm = operation.kind === "call" || (operation.kind === "goto" && operation.long);
    return inImm ? { imm: distance } : { offset: distance };
  }

  #add(operation: Operation, operands: Partial<Fields>, label?: string): this {
    const index = this.#slots;
    // Encoded here for the first time, so that a value out of range is reported at its place.
    makeInstruction(operation, operands, index);
    this.#pending.push({ operation, operands, index, ...(label === undefined ? {} : { label }) });
    this.#slots += operation.kind === "wide" ? 2 : 1;
    return this;
  }

  #load(dst: Register, base: Register, field: Field, signed: boolean): this {
    return this.#add(
      { kind: "load", size: field.width, signed },
      { dst: dst.register, src: base.register, offset: field.offset },
    );
  }

  #alu(bits: Bits): AluBuilder {
    return builders(ALU_OPS, (op) => (dst: Register, operand: Operand) => {
      const { source, fields } = second(operand);
      return this.#add({ kind: "alu", op, bits, source }, { ...fields, dst: dst.register });
    });
  }

  #jump(bits: Bits): JumpBuilder {
    return builders(JUMP_OPS, (op) => (dst: Register, operand: Operand, label: string) => {
      const { source, fields } = second(operand);
      return this.#add({ kind: "jump", op, bits, source }, { ...fields, dst: dst.register }, label);
    });
  }

  #fail(message: string): never {
    throw new EbpfError("ASSEMBLY", message, this.#slots);
  }
}

/** Returns a field of `width` bytes at `offset`, for loads and stores without a struct. */
export function at(offset: number, width: 1 | 2 | 4 | 8): Field {
  return { offset, width };
}

/** Returns the field moved by `displacement` bytes. */
export function shifted(field: Field, displacement: number): Field {
  return { offset: field.offset + displacement, width: field.width };
}

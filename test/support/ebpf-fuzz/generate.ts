/** Generates random programs that are valid and terminate. */
import { ENCODINGS, type Encoding, type Operation } from "../../../src/ebpf/opcode.ts";
import {
  CONTEXT_BYTES,
  FRAME_BYTES,
  type FuzzProgram,
  type GraphBlock,
  type Node,
  type Op,
  RESULT_OFFSET,
  SCALARS,
} from "./program.ts";
import type { Random } from "./random.ts";

/** Helpers that programs call, by number. */
export const FUZZ_HELPERS: readonly number[] = [7, 0x4b8f0009];
const CONTEXT = 6;
const FRAME = 10;
const FUNCTIONS = 3;

export interface GenerateOptions {
  /**
   * Generates only programs that the Linux kernel's verifier can prove: no helpers, no faults, no
   * addresses as numbers.
   */
  readonly provable: boolean;
}

const computes = (e: Encoding): boolean =>
  ["alu", "movsx", "neg", "swap", "wide"].includes(e.operation.kind) &&
  !(e.operation.kind === "wide" && e.operation.value !== "value");
const ARITHMETIC = ENCODINGS.filter(computes).map((e) => e.operation);
const ACCESSES = ENCODINGS.map((e) => e.operation).filter(
  (o) => o.kind === "load" || o.kind === "store" || o.kind === "atomic",
);
const JUMPS = ENCODINGS.map((e) => e.operation).filter((o) => o.kind === "jump");

export function generate(random: Random, options: GenerateOptions): FuzzProgram {
  const generator = new Generator(random, options.provable);
  const functions = Array.from({ length: 1 + random.below(FUNCTIONS) }, () => ({
    values: SCALARS.map(() => random.wide()),
    body: [] as Node[],
  }));
  functions.forEach((f, index) => {
    f.body.push(
      ...generator.nodes(2 + random.below(5), { index, count: functions.length, depth: 0 }),
    );
  });
  return { functions };
}

interface Place {
  /** Index of the function; below: their number. */
  readonly index: number;
  readonly count: number;
  /** Depth of nested constructs. */
  readonly depth: number;
}

class Generator {
  readonly #random: Random;
  readonly #provable: boolean;

  constructor(random: Random, provable: boolean) {
    this.#random = random;
    this.#provable = provable;
  }

  nodes(count: number, place: Place): Node[] {
    return Array.from({ length: count }, () => this.#node(place));
  }

  #node(place: Place): Node {
    const random = this.#random;
    const inner = { ...place, depth: place.depth + 1 };
    const nested = place.depth < 2;
    switch (random.below(12)) {
      case 0:
      case 1: {
        if (!nested) break;
        const then = this.nodes(1 + random.below(3), inner);
        return { kind: "if", test: this.#test(), then, else: this.nodes(random.below(3), inner) };
      }
      case 2:
        if (!nested) break;
        return {
          kind: "loop",
          count: 1 + random.below(6),
          body: this.nodes(1 + random.below(4), inner),
        };
      case 3:
        if (place.index + 1 >= place.count || place.depth > 1) break;
        return this.#call(place);
      case 4:
        if (!nested || this.#provable || !random.once(2)) break;
        return this.#graph(inner);
      case 5:
      case 6:
      case 7:
      case 8:
        return { kind: "ops", ops: this.#access() };
      case 9:
        if (this.#provable) break;
        return { kind: "ops", ops: this.#helper() };
    }
    return {
      kind: "ops",
      ops: Array.from({ length: 1 + random.below(5) }, () => this.#arithmetic()),
    };
  }

  #scalar(): number {
    return this.#random.pick(SCALARS);
  }

  /** Returns a register for reading. */
  #source(): number {
    if (this.#provable || !this.#random.once(20)) return this.#scalar();
    return this.#random.pick([CONTEXT, FRAME]);
  }

  #arithmetic(): Op {
    const random = this.#random;
    const operation = random.pick(ARITHMETIC);
    let imm = random.immediate();
    if (this.#provable && operation.kind === "alu") {
      const { op, bits } = operation;
      // The kernel refuses division by a constant zero, and shifts by the width or more.
      if (/sh$/.test(op)) imm &= bits - 1;
      if (/div|mod/.test(op) && imm === 0) imm = 7;
    }
    const operands = { dst: this.#scalar(), src: this.#source(), imm, high: random.next() | 0 };
    return { operation, operands };
  }

  #test(): Op {
    const operands = { dst: this.#scalar(), src: this.#source(), imm: this.#random.immediate() };
    return { operation: this.#random.pick(JUMPS), operands };
  }

  /**
   * Generates a load, store or atomic in the context, at a
   * constant or variable offset, or in the frame.
   */
  #access(): Op[] {
    const random = this.#random;
    const operation = random.pick(ACCESSES);
    const size =
      operation.kind === "atomic" ? operation.bits / 8 : (operation as { size: number }).size;
    const aligned = operation.kind === "atomic";
    if (random.once(3)) {
      const offset = -size * (1 + random.below(FRAME_BYTES / size));
      return [this.#accessAt(operation, FRAME, offset)];
    }
    const limit = RESULT_OFFSET - size;
    const anywhere = random.below(limit + 1);
    const offset = aligned ? anywhere - (anywhere % size) : anywhere;
    if (!this.#provable && random.once(60))
      return [this.#accessAt(operation, CONTEXT, this.#astray())];
    if (random.once(2)) return [this.#accessAt(operation, CONTEXT, offset)];
    return this.#variable(operation, aligned ? -size : -1, Math.min(offset, limit - 63));
  }

  /** rT = rS; rT &= mask; rT += context; access through rT; rT = constant. */
  #variable(operation: Operation, mask: number, offset: number): Op[] {
    const random = this.#random;
    // Not R0, which atomics may read.
    const temporary = random.pick(SCALARS.filter((n) => n !== 0));
    const alu = (
      op: "mov" | "and" | "add",
      source: "imm" | "reg",
      operands: Op["operands"],
    ): Op => ({
      operation: { kind: "alu", op, bits: 64, source },
      operands: { dst: temporary, ...operands },
    });
    const access = this.#accessAt(operation, temporary, offset - (offset % 8));
    return [
      alu("mov", "reg", { src: this.#scalar() }),
      alu("and", "imm", { imm: 63 & mask }),
      alu("add", "reg", { src: CONTEXT }),
      access,
      // A fetch or load may have replaced the address: sets a number in any case.
      alu("mov", "imm", { imm: random.immediate() }),
    ];
  }

  #accessAt(operation: Operation, base: number, offset: number): Op {
    const imm = this.#random.immediate();
    const value = this.#scalarBut(base);
    if (operation.kind === "load")
      return { operation, operands: { dst: value, src: base, offset } };
    return { operation, operands: { dst: base, src: value, offset, imm } };
  }

  #scalarBut(register: number): number {
    return this.#random.pick(SCALARS.filter((n) => n !== register));
  }

  /** Returns an offset just outside the context, or a misaligned one. */
  #astray(): number {
    const random = this.#random;
    return random.pick([-1, -8, CONTEXT_BYTES - 1, CONTEXT_BYTES, 3, random.immediate() % 0x7fff]);
  }

  #helper(): Op[] {
    const imm = this.#random.pick(FUZZ_HELPERS);
    if (this.#random.once(2))
      return [{ operation: { kind: "call", target: "helper" }, operands: { imm } }];
    const dst = this.#scalar();
    return [
      { operation: { kind: "alu", op: "mov", bits: 64, source: "imm" }, operands: { dst, imm } },
      { operation: { kind: "call", target: "register" }, operands: { dst } },
    ];
  }

  #call(place: Place): Node {
    const random = this.#random;
    const callee = place.index + 1 + random.below(place.count - place.index - 1);
    const scratch = Array.from({ length: 5 }, () => random.immediate());
    const keep = !this.#provable && random.once(2);
    return keep ? { kind: "call", callee } : { kind: "call", callee, scratch };
  }

  #graph(place: Place): Node {
    const random = this.#random;
    const count = 2 + random.below(5);
    const blocks: GraphBlock[] = Array.from({ length: count }, () => ({
      body: this.nodes(random.below(3), { ...place, depth: 2 }),
      test: this.#test(),
      taken: random.below(count),
      next: random.below(count),
    }));
    return { kind: "graph", fuel: 1 + random.below(30), blocks };
  }
}

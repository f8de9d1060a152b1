/** Random programs as trees, which can be shrunk before they are assembled. */
import { Assembler, at, R0, R1, R2, R6, R10, type Register } from "../../../src/ebpf/assembler.ts";
import type { Fields } from "../../../src/ebpf/instruction.ts";
import type { Operation } from "../../../src/ebpf/opcode.ts";

/** Size of the memory at R1, in bytes. */
export const CONTEXT_BYTES = 256;
/** Programs write their registers here at the end. Their own accesses stay below. */
export const RESULT_OFFSET = 168;
/** Bytes below R10 that programs use. The counters of loops are below them. */
export const FRAME_BYTES = 64;

/** Registers that hold numbers. R6 points to the context. */
export const SCALARS = [0, 1, 2, 3, 4, 5, 7, 8, 9] as const;

export interface Op {
  readonly operation: Operation;
  readonly operands: Partial<Fields>;
}

export type Node =
  /** Straight-line code that is valid only as a whole. */
  | { readonly kind: "ops"; readonly ops: readonly Op[] }
  | { readonly kind: "if"; readonly test: Op; readonly then: Node[]; readonly else: Node[] }
  | { readonly kind: "loop"; readonly count: number; readonly body: Node[] }
  /** Calls a function with the context in R1, then sets R1..R5 to `scratch`, if given. */
  | { readonly kind: "call"; readonly callee: number; readonly scratch?: readonly number[] }
  /**
   * A control-flow graph of any form: each block ends with a jump to two
   * of them, until `fuel` blocks have run.
   */
  | { readonly kind: "graph"; readonly fuel: number; readonly blocks: GraphBlock[] };

export interface GraphBlock {
  readonly body: Node[];
  readonly test: Op;
  readonly taken: number;
  readonly next: number;
}

export interface FuzzFunction {
  /** Initial values of `SCALARS`. R1..R5 of called functions are passed by the caller. */
  readonly values: readonly bigint[];
  readonly body: Node[];
}

/** Function 0 is the program. Each function calls only later ones. */
export interface FuzzProgram {
  readonly functions: FuzzFunction[];
}

const register = (n: number): Register => ({ register: n });
const isArgument = (n: number): boolean => n >= 1 && n <= 5;

export function assembleFuzz(program: FuzzProgram): Uint8Array {
  const p = new Assembler();
  const called = new Set([0]);
  program.functions.forEach((f, index) => {
    // The kernel refuses unreachable code.
    if (!called.has(index)) return;
    for (const callee of calleesOf(f.body)) called.add(callee);
    new FunctionWriter(p, index).write(f);
  });
  return p.assemble();
}

function calleesOf(nodes: readonly Node[]): number[] {
  return nodes.flatMap((node) => (node.kind === "call" ? [node.callee] : calleesOf(inside(node))));
}

function inside(node: Node): readonly Node[] {
  if (node.kind === "if") return [...node.then, ...node.else];
  if (node.kind === "loop") return node.body;
  return node.kind === "graph" ? node.blocks.flatMap((block) => block.body) : [];
}

class FunctionWriter {
  readonly #p: Assembler;
  readonly #index: number;
  #labels = 0;

  constructor(p: Assembler, index: number) {
    this.#p = p;
    this.#index = index;
  }

  write({ values, body }: FuzzFunction): void {
    const p = this.#p.label(`f${this.#index}`).alu64.mov(R6, R1);
    for (let offset = 8; offset <= FRAME_BYTES; offset += 8) p.store(R10, at(-offset, 8), offset);
    SCALARS.forEach((n, i) => {
      if (this.#index === 0 || !isArgument(n)) p.load64(register(n), values[i]!);
      // To the kernel, the context's address is not a scalar.
      else if (n === 1) p.alu64.mov(R1, 1);
    });
    this.#nodes(body, 0);
    if (this.#index === 0) {
      SCALARS.forEach((n, i) => {
        p.store(R6, at(RESULT_OFFSET + 8 * i, 8), register(n));
      });
    }
    p.exit();
  }

  #nodes(nodes: readonly Node[], depth: number): void {
    for (const node of nodes) this.#node(node, depth);
  }

  #label(): string {
    return `f${this.#index}.${this.#labels++}`;
  }

  #node(node: Node, depth: number): void {
    switch (node.kind) {
      case "ops":
        for (const { operation, operands } of node.ops) this.#p.emit(operation, operands);
        return;
      case "if":
        return this.#if(node, depth);
      case "loop":
        return this.#loop(node, depth);
      case "call":
        return this.#call(node);
      case "graph":
        return this.#graph(node, depth);
    }
  }

  #if(node: Extract<Node, { kind: "if" }>, depth: number): void {
    const [other, end] = [this.#label(), this.#label()];
    this.#jump(node.test, other);
    this.#nodes(node.then, depth);
    if (node.else.length % 2 === 0) this.#p.goto(end);
    else this.#p.gotoLong(end);
    this.#p.label(other);
    this.#nodes(node.else, depth);
    this.#p.label(end);
  }

  #loop(node: Extract<Node, { kind: "loop" }>, depth: number): void {
    const head = this.#label();
    const counter = at(-FRAME_BYTES - 8 * (depth + 1), 8);
    this.#p.store(R10, counter, node.count).label(head);
    this.#nodes(node.body, depth + 1);
    this.#p.load(R2, R10, counter).alu64.sub(R2, 1).store(R10, counter, R2).jump.ne(R2, 0, head);
  }

  #call({ callee, scratch }: Extract<Node, { kind: "call" }>): void {
    this.#p.alu64.mov(R1, R6).callLocal(`f${callee}`);
    scratch?.forEach((value, i) => {
      this.#p.alu64.mov(register(1 + i), value);
    });
  }

  #graph(node: Extract<Node, { kind: "graph" }>, depth: number): void {
    const labels = node.blocks.map(() => this.#label());
    const end = this.#label();
    const fuel = at(-FRAME_BYTES - 8 * (depth + 1), 8);
    this.#p.store(R10, fuel, node.fuel);
    node.blocks.forEach(({ body, test, taken, next }, b) => {
      this.#p.label(labels[b]!);
      this.#nodes(body, depth + 1);
      this.#p.load(R0, R10, fuel).alu64.sub(R0, 1).store(R10, fuel, R0).jump.eq(R0, 0, end);
      this.#jump(test, labels[taken % labels.length]!);
      this.#p.goto(labels[next % labels.length]!);
    });
    this.#p.label(end);
  }

  #jump({ operation, operands }: Op, label: string): void {
    if (operation.kind !== "jump") throw new TypeError("a test is a conditional jump");
    const { op, bits, source } = operation;
    const jump = bits === 64 ? this.#p.jump : this.#p.jump32;
    const second = source === "reg" ? register(operands.src!) : operands.imm!;
    jump[op](register(operands.dst!), second, label);
  }
}

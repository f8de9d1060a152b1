/**
 * Control flow as WebAssembly has it: blocks, loops and branches outwards, and no goto. Reducible
 * graphs are put in form after Ramsey, "Beyond Relooper" (ICFP 2022): the code of a block holds
 * that of the blocks it dominates, joins follow a `block` that is left by branches. Any other graph
 * becomes a loop around a jump table.
 */
import type { Flow } from "./flow.ts";
import { findRow, type Row } from "./row.ts";
import type { StayTest } from "./stay.ts";
import type { Code } from "./wasm.ts";

/** What a block's code is made with. */
export interface BlockEmitter {
  /**
   * All of the block but its jump; of a conditional jump the condition is left on the stack (1:
   * taken).
   * @param ahead instructions from its start on that are counted as executed already; otherwise it
   * counts its own
   * @param hoisted whether bounds have been tested by what `hoist` has left
   */
  body(block: number, ahead?: number, hoisted?: boolean): void;
  /**
   * @returns a test that no access leaves its bounds; undefined if nothing is known of the next
   * iterations
   */
  hoist(row: Row, iterations: number): Ahead | undefined;
  /** Counts so many instructions as executed; if negative, as not executed after all. */
  count(instructions: number): void;
  /** At each loop header: endless loops end there. */
  loopHead(block: number): void;
  /** An i32 local, 0 at the start, for the number of the next block if there is a jump table. */
  readonly state: number;
}

/** What is known of a loop's next iterations, so that they need less code. */
export interface Ahead extends StayTest {
  /** Whether it also says that the loop is not left. */
  readonly stays: boolean;
}

/** Iterations that are unrolled, with one test of the step limit: most, and least. */
const UNROLLED = 8;
const FEW_UNROLLED = 4;
/**
 * Instructions of the unrolled body, at most, if it has more than the least number of iterations.
 */
const LONGEST = 96;
// Deeper graphs would overflow the stack of this recursion.
const MAX_DEPTH = 500;

export function emitFlow(code: Code, flow: Flow, emitter: BlockEmitter): void {
  if (flow.reducible && flow.depth <= MAX_DEPTH) new Structured(code, flow, emitter).tree(0);
  else emitDispatch(code, flow, emitter);
  code.op("unreachable");
}

/** In the list of what encloses the code: `if` constructs, and unrolled loops. */
const IF = -1;
const AGAIN = -2;

class Structured {
  readonly #code: Code;
  readonly #flow: Flow;
  readonly #emitter: BlockEmitter;
  /** Joins that stand behind each block, in reverse postorder. */
  readonly #joins: number[][];
  /** Blocks that are reached by a branch: joins, and successors of blocks that are copied. */
  readonly #isJoin: Uint8Array;
  /** Of each block, edges to it from itself or later blocks. */
  readonly #backward: Uint32Array;
  /** What encloses the code, innermost last: loop heads and joins by their block. */
  readonly #around: number[] = [];

  constructor(code: Code, flow: Flow, emitter: BlockEmitter) {
    this.#code = code;
    this.#flow = flow;
    this.#emitter = emitter;
    this.#joins = flow.blocks.map(() => []);
    this.#isJoin = flow.isMerge.slice();
    this.#backward = new Uint32Array(flow.blocks.length);
    flow.blocks.forEach(({ taken, next }, b) => {
      for (const to of [taken, next]) if (to >= 0 && to <= b) this.#backward[to]!++;
    });
    flow.isMerge.forEach((merge, b) => {
      if (merge === 1) this.#joins[flow.dominator[b]!]!.push(b);
    });
  }

  /** The block and all that it dominates. */
  tree(block: number): void {
    if (this.#flow.isLoop[block] === 0) return this.#node(block);
    const row = findRow(this.#flow, block);
    if (row !== undefined) return this.#unroll(row);
    this.#enter(block);
    this.#emitter.loopHead(block);
    this.#node(block);
    this.#leave();
  }

  /** Unrolls a loop: the step limit and V8's interrupt test cost as much as a small loop's body. */
  #unroll(row: Row): void {
    const [head] = row.blocks;
    const joins = this.#spread(row);
    // If the loop has other back edges, what follows the unrolled body is a part of it.
    const returns = this.#backward[head!]! > 1 || joins.some((join) => row.blocks.includes(join));
    const iterations = row.length * UNROLLED <= LONGEST ? UNROLLED : FEW_UNROLLED;
    const ahead = returns ? undefined : this.#emitter.hoist(row, iterations);
    if (returns) this.#enter(head!);
    this.#open(joins);
    if (!returns) this.#enter(head!);
    this.#inRow(row, ahead === undefined ? iterations : FEW_UNROLLED);
    if (ahead !== undefined) this.#inRowWhile(ahead, row, iterations);
    this.#code.br(this.#depth(head!));
    if (!returns) this.#leave();
    this.#follow(joins);
    if (returns) this.#leave();
  }

  #enter(head: number): void {
    this.#code.loop();
    this.#around.push(head);
  }

  /**
   * @returns successors of the copied blocks, which only branches reach now, in reverse postorder
   */
  #spread({ blocks }: Row): number[] {
    const { dominator, isMerge } = this.#flow;
    const joins: number[] = [];
    for (let b = blocks[0]! + 1; b < dominator.length; b++) {
      if (!blocks.includes(dominator[b]!) || (blocks.includes(b) && isMerge[b] === 0)) continue;
      joins.push(b);
      this.#isJoin[b] = 1;
    }
    for (const b of blocks) this.#joins[b] = [];
    return joins;
  }

  /**
   * After a few iterations, as shorter loops are not worth the preparation; repeated while the test
   * succeeds.
   */
  #inRowWhile(ahead: Ahead, row: Row, iterations: number): void {
    ahead.prepare();
    this.#enter(AGAIN);
    ahead.test();
    this.#code.if();
    this.#around.push(IF);
    this.#inRow(row, iterations, true, ahead.stays);
    this.#code.br(this.#depth(AGAIN));
    this.#leave();
    this.#leave();
  }

  /**
   * @param hoisted whether bounds have been tested
   * @param stays whether the loop certainly continues
   */
  #inRow(row: Row, iterations: number, hoisted = false, stays = false): void {
    let later = iterations * row.length;
    // Not before the exit condition: V8 hoists its computation as long as no exit precedes it.
    this.#emitter.loopHead(row.blocks[0]!);
    this.#emitter.count(later);
    for (let iteration = 0; iteration < iterations; iteration++) {
      row.blocks.forEach((block, n) => {
        this.#emitter.body(block, later, hoisted);
        const { instructions, taken, next } = this.#flow.blocks[block]!;
        later -= instructions.length;
        const exit = row.exits[n]!;
        if (exit >= 0 && !stays) this.#leaveRow(exit, exit === taken, later);
        else if (taken >= 0 && next >= 0) this.#code.op("drop");
      });
    }
  }

  /** @param later instructions that have been counted and do not run then */
  #leaveRow(exit: number, whenTaken: boolean, later: number): void {
    if (!whenTaken) this.#code.op("i32_eqz");
    this.#code.if();
    this.#around.push(IF);
    this.#emitter.count(-later);
    this.#code.br(this.#depth(exit));
    this.#leave();
  }

  #node(block: number): void {
    const joins = this.#joins[block]!;
    this.#open(joins);
    this.#emitter.body(block);
    this.#jump(block);
    this.#follow(joins);
  }

  /** So that what comes now can branch to each of them. */
  #open(joins: readonly number[]): void {
    for (const join of joins.toReversed()) {
      this.#code.block();
      this.#around.push(join);
    }
  }

  /** Their code, each behind the block that was opened for it. */
  #follow(joins: readonly number[]): void {
    for (const join of joins) {
      this.#leave();
      this.tree(join);
    }
  }

  #jump(block: number): void {
    const { taken, next } = this.#flow.blocks[block]!;
    if (taken < 0 || next < 0 || taken === next) {
      if (taken >= 0 && taken === next) this.#code.op("drop");
      return this.#goto(block, Math.max(taken, next));
    }
    if (this.#isBranch(block, taken)) {
      this.#code.brIf(this.#depth(taken));
      return this.#goto(block, next);
    }
    if (this.#isBranch(block, next)) {
      this.#code.op("i32_eqz").brIf(this.#depth(next));
      return this.#goto(block, taken);
    }
    this.#code.if();
    this.#around.push(IF);
    this.tree(taken);
    this.#code.op("else");
    this.tree(next);
    this.#leave();
  }

  #goto(from: number, to: number): void {
    if (to < 0) return;
    if (this.#isBranch(from, to)) this.#code.br(this.#depth(to));
    else this.tree(to);
  }

  #isBranch(from: number, to: number): boolean {
    return to <= from || this.#isJoin[to] === 1;
  }

  #depth(target: number): number {
    return this.#around.length - 1 - this.#around.lastIndexOf(target);
  }

  #leave(): void {
    this.#around.pop();
    this.#code.op("end");
  }
}

function emitDispatch(code: Code, flow: Flow, emitter: BlockEmitter): void {
  const count = flow.blocks.length;
  const { state } = emitter;
  code.loop();
  emitter.loopHead(0);
  for (let b = 0; b < count; b++) code.block();
  code.get(state).brTable(count);
  flow.blocks.forEach(({ taken, next }, b) => {
    code.op("end");
    emitter.body(b);
    if (taken >= 0 && taken === next) code.op("drop");
    if (taken >= 0 && next >= 0 && taken !== next) {
      code.if().i32(taken).set(state).op("else").i32(next).set(state).op("end");
    } else if (taken >= 0 || next >= 0) {
      code.i32(Math.max(taken, next)).set(state);
    }
    if (taken >= 0 || next >= 0) code.br(count - 1 - b);
  });
  code.op("end");
}

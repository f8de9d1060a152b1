/**
 * Control flow as WebAssembly has it: blocks, loops and branches outwards, and no goto. Reducible graphs are put
 * in form after Ramsey, "Beyond Relooper" (ICFP 2022): the code of a block holds that of the blocks it dominates,
 * joins follow a `block` that is left by branches. Any other graph becomes a loop around a jump table.
 */
import type { Flow } from "./flow.ts";
import type { Code } from "./wasm.ts";

/** What a block's code is made with. */
export interface BlockEmitter {
  /**
   * All of the block but its jump; of a conditional jump the condition is left on the stack (1: taken).
   * @param ahead instructions from its start on that are counted as executed already; otherwise it counts its own
   * @param hoisted whether bounds have been tested by what `hoist` has left
   */
  body(block: number, ahead?: number, hoisted?: boolean): void;
  /** In front of a loop: code for many rounds at once, where there is one for such a loop and as long as it goes on. */
  vectors(loop: ShortLoop): void;
  /** In front of a loop. @returns undefined where nothing is known of its next rounds */
  hoist(loop: ShortLoop, rounds: number): Ahead | undefined;
  /** Counts so many instructions as executed, or as not executed after all where negative. */
  count(instructions: number): void;
  /** At the head of each loop, where endless ones must end. */
  loopHead(block: number): void;
  /** An i32 local, 0 at the start, for the number of the next block where there is a jump table. */
  readonly state: number;
}

/** What can be known of a loop's next rounds. */
export interface Ahead {
  /** Leaves 1 on the stack where no access leaves its bounds. */
  readonly test: () => void;
  /** Whether the loop is not left then either. */
  readonly stays: boolean;
}

/** Instructions of a loop that is short. */
const SHORT = 24;
/** Rounds of a short loop for one test of the step limit: most, and least. */
const ROUNDS = 8;
const FEW_ROUNDS = 4;
/** Instructions that so many rounds make at most, where they are not few. */
const LONGEST = 96;
// Deeper graphs would overflow the stack of this recursion.
const MAX_DEPTH = 500;

export function emitFlow(code: Code, flow: Flow, emitter: BlockEmitter): void {
  if (flow.reducible && flow.depth <= MAX_DEPTH) new Structured(code, flow, emitter).tree(0);
  else emitDispatch(code, flow, emitter);
  code.op("unreachable");
}

/** A loop of one or two blocks that is left from the first one only. */
export interface ShortLoop {
  readonly head: number;
  /** The second block, -1 where there is none. */
  readonly rest: number;
  readonly exit: number;
}

/** `if` constructs in the list of what encloses the code. */
const IF = -1;

class Structured {
  readonly #code: Code;
  readonly #flow: Flow;
  readonly #emitter: BlockEmitter;
  /** Joins dominated by each block, in reverse postorder. */
  readonly #joins: readonly number[][];
  /** Of each block, edges to it from itself or later blocks. */
  readonly #backward: Uint32Array;
  /** What encloses the code, innermost last: loop heads and joins by their block. */
  readonly #around: number[] = [];

  constructor(code: Code, flow: Flow, emitter: BlockEmitter) {
    this.#code = code;
    this.#flow = flow;
    this.#emitter = emitter;
    this.#joins = flow.blocks.map(() => []);
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
    const short = this.#shortLoop(block);
    if (short !== undefined) return this.#rounds(short);
    this.#code.loop();
    this.#around.push(block);
    this.#emitter.loopHead(block);
    this.#node(block);
    this.#leave();
  }

  #shortLoop(head: number): ShortLoop | undefined {
    const { taken, next } = this.#flow.blocks[head]!;
    if (this.#backward[head] !== 1 || taken < 0 || next < 0 || taken === next) return undefined;
    for (const [stay, exit] of [
      [taken, next],
      [next, taken],
    ] as const) {
      const rest = stay === head ? -1 : stay;
      const returns = rest < 0 || this.#returnsTo(rest, head);
      if (returns && this.#length(head) + this.#length(rest) <= SHORT) return { head, rest, exit };
    }
    return undefined;
  }

  /** Whether all that a block does is to go on to the loop's head that it was reached from. */
  #returnsTo(block: number, head: number): boolean {
    const { blocks, isLoop, isMerge, dominator } = this.#flow;
    const { taken, next } = blocks[block]!;
    const goes = Math.max(taken, next) === head && Math.min(taken, next) === -1;
    return goes && isLoop[block] === 0 && isMerge[block] === 0 && dominator[block] === head;
  }

  #length(block: number): number {
    return block < 0 ? 0 : this.#flow.blocks[block]!.instructions.length;
  }

  /** Some rounds in a row: the step limit, and V8's test for interrupts, cost as much as a small loop's work. */
  #rounds(loop: ShortLoop): void {
    const code = this.#code;
    const { head, rest, exit } = loop;
    const length = this.#length(head) + this.#length(rest);
    const rounds = length * ROUNDS <= LONGEST ? ROUNDS : FEW_ROUNDS;
    this.#emitter.vectors(loop);
    const ahead = this.#emitter.hoist(loop, rounds);
    code.block().loop();
    this.#emitter.loopHead(head);
    if (ahead !== undefined) {
      ahead.test();
      code.if();
      if (ahead.stays) this.#throughout(loop, rounds);
      else this.#inRow(loop, rounds, 3, true);
      code.op("else");
      this.#inRow(loop, FEW_ROUNDS, 3, false);
      code.op("end");
    } else this.#inRow(loop, rounds, 2, false);
    code.br(0).op("end", "end");
    this.#goto(head, exit);
  }

  /** Rounds that do not leave the loop. */
  #throughout({ head, rest }: ShortLoop, rounds: number): void {
    const round = this.#length(head) + this.#length(rest);
    this.#emitter.count(rounds * round);
    for (let later = (rounds - 1) * round; later >= 0; later -= round) {
      this.#emitter.body(head, later + round, true);
      this.#code.op("drop");
      if (rest >= 0) this.#emitter.body(rest, later + this.#length(rest), true);
    }
  }

  /** @param depth of the block behind the loop, in the `if` that leads there */
  #inRow({ head, rest, exit }: ShortLoop, rounds: number, depth: number, hoisted: boolean): void {
    const code = this.#code;
    const round = this.#length(head) + this.#length(rest);
    this.#emitter.count(rounds * round);
    for (let later = (rounds - 1) * round; later >= 0; later -= round) {
      this.#emitter.body(head, later + round, hoisted);
      if (this.#flow.blocks[head]!.next === exit) code.op("i32_eqz");
      code.if();
      this.#emitter.count(-(later + this.#length(rest)));
      code.br(depth).op("end");
      if (rest >= 0) this.#emitter.body(rest, later + this.#length(rest), hoisted);
    }
  }

  #node(block: number): void {
    const joins = this.#joins[block]!;
    for (const join of joins.toReversed()) {
      this.#code.block();
      this.#around.push(join);
    }
    this.#emitter.body(block);
    this.#jump(block);
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
    return to <= from || this.#flow.isMerge[to] === 1;
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

/** The interference graph: an edge joins registers that are live at the same time. */
import { ALLOCATABLE, type MachineInstruction, VIRTUAL } from "./code.ts";

const FRAME_POINTER = 10;

export interface Colouring {
  readonly colours: (register: number) => number;
  /** Registers without a colour, grouped if they are never live at the same time. */
  readonly spilled: readonly (readonly number[])[];
}

/** A stack slot, and its registers, as nodes of the graph and one by one. */
interface Slot {
  readonly nodes: number[];
  readonly members: number[];
}

export class Graph {
  readonly #neighbours: Set<number>[];
  readonly #uses: Float64Array;
  /** The register that each one was coalesced into. */
  readonly #merged: Int32Array;

  constructor(registers: number) {
    this.#neighbours = Array.from({ length: registers }, () => new Set());
    this.#uses = new Float64Array(registers);
    this.#merged = Int32Array.from({ length: registers }, (_, i) => i);
  }

  connect(a: number, b: number): void {
    if (a === b || a === FRAME_POINTER || b === FRAME_POINTER) return;
    this.#neighbours[a]!.add(b);
    this.#neighbours[b]!.add(a);
  }

  use(register: number): void {
    this.#uses[register]!++;
  }

  find(register: number): number {
    let r = register;
    while (this.#merged[r] !== r) r = this.#merged[r]!;
    return r;
  }

  coalesce(moves: readonly MachineInstruction[], careful: boolean): void {
    for (let changed = true; changed; ) {
      changed = false;
      for (const { dst, src } of moves) {
        const [a, b] = [this.find(dst), this.find(src)];
        if (a === b || a === FRAME_POINTER || b === FRAME_POINTER) continue;
        if (this.#interfere(a, b) || (careful && !this.#isSafe(a, b))) continue;
        this.#merge(a, b);
        changed = true;
      }
    }
  }

  /** Machine registers always interfere with each other. */
  #interfere(a: number, b: number): boolean {
    return (a < VIRTUAL && b < VIRTUAL) || this.#neighbours[a]!.has(b);
  }

  #degree(register: number): number {
    return register < VIRTUAL ? Number.POSITIVE_INFINITY : this.#neighbours[register]!.size;
  }

  #isSafe(a: number, b: number): boolean {
    const [machine, other] = a < VIRTUAL ? [a, b] : [b, a];
    if (machine < VIRTUAL) {
      return [...this.#neighbours[other]!].every(
        (n) => n < VIRTUAL || this.#degree(n) < ALLOCATABLE || this.#interfere(n, machine),
      );
    }
    const both = new Set([...this.#neighbours[a]!, ...this.#neighbours[b]!]);
    return [...both].filter((n) => this.#degree(n) >= ALLOCATABLE).length < ALLOCATABLE;
  }

  #merge(x: number, y: number): void {
    const [into, from] = x < y ? [x, y] : [y, x];
    this.#merged[from] = into;
    this.#uses[into]! += this.#uses[from]!;
    for (const n of this.#neighbours[from]!) {
      this.#neighbours[n]!.delete(from);
      this.connect(into, n);
    }
    this.#neighbours[from]!.clear();
  }

  colour(unspillable: ReadonlySet<number>): Colouring {
    const colours = new Int32Array(this.#merged.length).fill(-1);
    for (let r = 0; r < VIRTUAL; r++) colours[r] = r;
    const slots: Slot[] = [];
    for (const register of this.#order(unspillable)) {
      const taken = new Set([...this.#neighbours[register]!].map((n) => colours[n]!));
      let free = 0;
      while (free < ALLOCATABLE && taken.has(free)) free++;
      if (free < ALLOCATABLE) colours[register] = free;
      else this.#spill(slots, register, this.#members(register, unspillable));
    }
    const spilled = slots.map(({ members }) => members);
    return { colours: (register) => colours[this.find(register)]!, spilled };
  }

  /** Assigns the first stack slot without a register that is live at the same time. */
  #spill(slots: Slot[], register: number, members: readonly number[]): void {
    const apart = (other: number): boolean => !this.#neighbours[register]!.has(other);
    let slot = slots.find(({ nodes }) => nodes.every(apart));
    if (slot === undefined) {
      slot = { nodes: [], members: [] };
      slots.push(slot);
    }
    slot.nodes.push(register);
    slot.members.push(...members);
  }

  /**
   * Returns all registers coalesced into one: never live at the same time, and in one stack slot.
   */
  #members(register: number, unspillable: ReadonlySet<number>): number[] {
    const members: number[] = [];
    for (let r = VIRTUAL; r < this.#merged.length; r++) {
      if (this.find(r) === register && !unspillable.has(r)) members.push(r);
    }
    return members;
  }

  /** Returns the order of colouring: the reverse of the order of simplification. */
  #order(unspillable: ReadonlySet<number>): number[] {
    const left = new Set<number>();
    const degree = new Map<number, number>();
    for (let r = VIRTUAL; r < this.#merged.length; r++) {
      if (this.find(r) !== r) continue;
      left.add(r);
      degree.set(r, this.#neighbours[r]!.size);
    }
    const order: number[] = [];
    while (left.size > 0) {
      const next = this.#next(left, degree, unspillable);
      left.delete(next);
      order.push(next);
      for (const n of this.#neighbours[next]!) if (left.has(n)) degree.set(n, degree.get(n)! - 1);
    }
    return order.reverse();
  }

  #next(
    left: ReadonlySet<number>,
    degree: ReadonlyMap<number, number>,
    unspillable: ReadonlySet<number>,
  ): number {
    let best = -1;
    let least = Number.POSITIVE_INFINITY;
    for (const r of left) {
      if (degree.get(r)! < ALLOCATABLE) return r;
      const fixed = unspillable.has(r) ? 1e6 : 0;
      const cost = (this.#uses[r]! + fixed) / degree.get(r)!;
      if (cost < least) [best, least] = [r, cost];
    }
    return best;
  }
}

/**
 * Explores every path of a program, depth first, as the Linux kernel's verifier does.
 * At joins the state is compared with those seen there, and a covered path is pruned.
 * Loops are followed iteration by iteration, so bounded loops are seen to end; a state
 * that recurs unchanged is an endless loop.
 */

import type { ProgramForm, ProgramName } from "../../abi/programs.ts";
import { FRAME_POINTER, type Instruction } from "../instruction.ts";
import { STACK_SIZE } from "../runner.ts";
import { acrossCall, analyseFlow, type Flow } from "./flow.ts";
import { Refused } from "./refusal.ts";
import { covered, type Liveness, State } from "./state.ts";
import { DONE, type Surroundings, step } from "./step.ts";

/** A branch on the current path at which both sides were possible. */
export interface Turn {
  readonly index: number;
  readonly taken: boolean;
  readonly before: Turn | null;
}

/** A state seen at a join. It is done when all paths from it are. */
interface Seen {
  readonly state: State;
  readonly parent: Seen | null;
  /** Instructions from the start on the path to it. */
  readonly depth: number;
  /** Paths from it that are not yet explored. */
  open: number;
  /** Instructions on the longest path from it to the end; valid when done. */
  longest: number;
}

/**
 * States seen at a join. Iterations of a loop differ in their counters:
 * `alike` finds states with the same constants.
 */
interface Place {
  readonly latest: Seen[];
  /** By `keyOf`. */
  readonly alike: Map<number, Seen[]>;
}

interface Pending {
  readonly state: State;
  readonly slot: number;
  readonly parent: Seen | null;
  readonly depth: number;
  readonly turn: Turn | null;
}

export interface ExploreOptions {
  readonly contextSize: number;
  readonly form: ProgramForm;
  readonly program: ProgramName | undefined;
  /** Limit of instructions followed and states compared, together. */
  readonly budget: number;
  /** Called before each instruction that is followed. */
  readonly trace?: (state: State, instruction: Instruction) => void;
  /** Called when a path is pruned. */
  readonly pruned?: (slot: number) => void;
}

/** Hashes the relevant constants and constant addresses. */
function keyOf({ registers }: State, { relevant }: Liveness): number {
  let hash = 0;
  for (let n = 0; n < FRAME_POINTER; n++) {
    const value = registers[n];
    if (value === undefined || !((relevant >> n) & 1)) continue;
    const { bits } = value.isPointer ? value.offset : value;
    if (!bits.isConstant) continue;
    const constant = bits.vl + (value.isPointer ? value.fixed : 0);
    hash = Math.imul(hash ^ (constant + n), 0x9e3779b1) ^ (hash >>> 15);
  }
  return hash;
}

/** Number of states compared at one join: of the latest, and of those with the same constants. */
const COMPARED = 12;
/** Keeps a state every so many instructions, or if few are kept at that join. */
const KEEP_EVERY = 8;

export class Exploration implements Surroundings {
  readonly flow: Flow;
  readonly contextSize: number;
  readonly form: ProgramForm;
  readonly program: ProgramName | undefined;
  readonly #options: ExploreOptions;
  readonly #seen: (Place | undefined)[];
  readonly #pending: Pending[] = [];
  readonly #stackUse: number[];
  readonly #visits: Uint32Array;
  #work = 0;
  #parent: Seen | null = null;
  #depth = 0;
  #kept = 0;
  #turn: Turn | null = null;
  /** Instructions followed; below: states kept, and instructions on the longest path. */
  steps = 0;
  states = 0;
  longest = 0;
  /** The current state, for messages. */
  current: State = State.initial();

  /** @throws Refused */
  constructor(instructions: readonly Instruction[], options: ExploreOptions) {
    this.flow = analyseFlow(instructions);
    this.contextSize = options.contextSize;
    this.form = options.form;
    this.program = options.program;
    this.#options = options;
    this.#seen = new Array<Place | undefined>(this.flow.at.length).fill(undefined);
    this.#visits = new Uint32Array(this.flow.at.length);
    this.#stackUse = this.flow.functions.map(() => 0);
  }

  /** The branches on the current path, the latest first. */
  get turn(): Turn | null {
    return this.#turn;
  }

  /** @throws Refused */
  run(): void {
    this.#pending.push({ state: State.initial(), slot: 0, parent: null, depth: 0, turn: null });
    for (let next = this.#pending.pop(); next !== undefined; next = this.#pending.pop()) {
      this.#parent = next.parent;
      this.#depth = next.depth;
      this.#kept = next.depth;
      this.#turn = next.turn;
      this.current = next.state;
      this.#followPath(next.slot);
    }
    this.#checkStack();
  }

  #followPath(from: number): void {
    const { trace } = this.#options;
    for (let slot = from; slot !== DONE; ) {
      const i = this.flow.at[slot]!;
      if (this.flow.joins[slot] && this.#meet(slot)) return;
      this.#spend(1, slot);
      this.#visits[slot]!++;
      this.steps++;
      this.#depth++;
      trace?.(this.current, i);
      slot = step(this, this.current, i);
    }
    this.#end(this.#depth);
  }

  fork(state: State, slot: number, index: number, taken: boolean): void {
    if (this.#parent !== null) this.#parent.open++;
    this.#pending.push({
      state,
      slot,
      parent: this.#parent,
      depth: this.#depth,
      turn: { index, taken, before: this.#turn },
    });
  }

  followed(index: number, taken: boolean): void {
    this.#turn = { index, taken, before: this.#turn };
  }

  useStack(fn: number, depth: number): void {
    if (depth > this.#stackUse[fn]!) this.#stackUse[fn] = depth;
  }

  /** Compares with the states seen here. @returns true if the path is pruned */
  #meet(slot: number): boolean {
    const place: Place = this.#seen[slot] ?? { latest: [], alike: new Map() };
    this.#seen[slot] = place;
    const liveness = this.#livenessOf(slot);
    const key = keyOf(this.current, liveness.at(-1)!);
    const alike = place.alike.get(key) ?? [];
    if (this.#wasSeen(slot, alike, liveness) || this.#wasSeen(slot, place.latest, liveness)) {
      return true;
    }
    const kept = alike.length + place.latest.length;
    if (kept < COMPARED || this.#depth - this.#kept >= KEEP_EVERY) {
      const seen = this.#keep();
      place.latest.push(seen);
      if (place.latest.length > COMPARED) place.latest.shift();
      alike.push(seen);
      if (alike.length > COMPARED) alike.shift();
      place.alike.set(key, alike);
    }
    return false;
  }

  #wasSeen(slot: number, list: readonly Seen[], liveness: readonly Liveness[]): boolean {
    for (let n = list.length - 1; n >= 0; n--) {
      const seen = list[n]!;
      this.#spend(1, slot);
      if (!covered(seen.state, this.current, liveness)) continue;
      if (seen.open === 0) {
        this.#options.pruned?.(slot);
        this.#end(this.#depth + seen.longest);
        return true;
      }
      if (covered(this.current, seen.state, liveness)) throw this.#endless(slot, seen);
    }
    return false;
  }

  #keep(): Seen {
    const parent = this.#parent;
    const state = this.current.copy();
    const seen: Seen = { state, parent, depth: this.#depth, open: 1, longest: 0 };
    this.states++;
    this.#kept = this.#depth;
    this.#parent = seen;
    return seen;
  }

  #livenessOf(slot: number): Liveness[] {
    const { liveness } = this.flow;
    const { frames } = this.current;
    return frames.map((_, n) => {
      const callee = frames[n + 1];
      return callee === undefined ? liveness[slot]! : acrossCall(liveness[callee.back]!);
    });
  }

  /** Ends a path of `depth` instructions. */
  #end(depth: number): void {
    this.longest = Math.max(this.longest, depth);
    let total = depth;
    for (let seen = this.#parent; seen !== null; seen = seen.parent) {
      seen.longest = Math.max(seen.longest, total - seen.depth);
      seen.open--;
      if (seen.open > 0) break;
      total = seen.depth + seen.longest;
    }
  }

  #spend(amount: number, slot: number): void {
    this.#work += amount;
    if (this.#work <= this.#options.budget) return;
    const busiest = this.#visits.indexOf(this.#visits.reduce((a, b) => Math.max(a, b), 0));
    throw new Refused(
      "TOO_COMPLEX",
      slot,
      `still undecided after ${this.steps} instructions; instruction ${busiest} alone was followed ` +
        `${this.#visits[busiest]} times`,
      "give loops a small constant bound, and branch less within them",
    );
  }

  #endless(slot: number, seen: Seen): Refused {
    return new Refused(
      "ENDLESS_LOOP",
      slot,
      `control comes back here after ${this.#depth - seen.depth} instructions with nothing changed that could end the loop`,
      "count iterations in a register or on the stack, and compare the count with a constant",
    );
  }

  /** Stack of the deepest chain of functions in bytes. Each frame is rounded up to 32. */
  get stackDepth(): number {
    return this.#deepest(0, new Map());
  }

  #deepest(fn: number, known: Map<number, number>): number {
    const found = known.get(fn);
    if (found !== undefined) return found;
    const used = this.#stackUse[fn]!;
    if (this.flow.functions.length === 1) return used;
    const own = Math.max(1, Math.ceil(used / 32)) * 32;
    let below = 0;
    for (const called of this.flow.functions[fn]!.calls) {
      below = Math.max(below, this.#deepest(called, known));
    }
    known.set(fn, own + below);
    return own + below;
  }

  #checkStack(): void {
    if (this.flow.functions.length === 1) return;
    const depth = this.stackDepth;
    if (depth <= STACK_SIZE) return;
    throw new Refused(
      "STACK_DEPTH",
      -1,
      `nested functions use ${depth} bytes of stack: the limit is ${STACK_SIZE}`,
      "use less stack, or let the compiler inline them",
    );
  }
}

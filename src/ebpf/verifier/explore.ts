/**
 * Follows every path of a program, depth first, as the Linux kernel's verifier does. Where paths
 * meet, the state is compared with those seen there: what an earlier path covered is not followed
 * again. Loops are followed iteration by iteration, so whatever ends is seen to end; a state that
 * comes back unchanged never ends.
 */

import type { ProgramForm, ProgramName } from "../../abi/programs.ts";
import { FRAME_POINTER, type Instruction } from "../instruction.ts";
import { STACK_SIZE } from "../runner.ts";
import { acrossCall, analyseFlow, type Flow } from "./flow.ts";
import { Refused } from "./refusal.ts";
import { covered, type Liveness, State } from "./state.ts";
import { DONE, type Surroundings, step } from "./step.ts";

/** A place on the way where two ways were possible. */
export interface Turn {
  readonly index: number;
  readonly taken: boolean;
  readonly before: Turn | null;
}

/** A state that was seen at a join. It is done when all that follows from it is. */
interface Seen {
  readonly state: State;
  readonly parent: Seen | null;
  /** Instructions from the start, on the path that came here. */
  readonly depth: number;
  /** Ways from here that are still to be followed. */
  open: number;
  /** Instructions on the longest way from here to the end; known when done. */
  longest: number;
}

/**
 * What was seen at a join. Iterations of a loop differ in their counters, so `alike` finds the same
 * iteration again.
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
  /** Instructions followed and states compared, together, before it is given up. */
  readonly budget: number;
  /** Called before each instruction that is followed. */
  readonly trace?: (state: State, instruction: Instruction) => void;
  /** Called when a path ends because an earlier one covers it. */
  readonly pruned?: (slot: number) => void;
}

/** A hash of the constants and constant addresses that can still matter. */
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

/**
 * States compared with at one join: so many of the latest, and of those with the same constants.
 */
const COMPARED = 12;
/**
 * A state is kept if so many instructions were followed since the last one, or few are kept at that
 * place.
 */
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
  /** Instructions followed, states kept, and instructions on the longest path. */
  steps = 0;
  states = 0;
  longest = 0;
  /** Where the exploration stands; for messages. */
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

  /** The turns on the way to where it stands, the latest first. */
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

  /** Compares with what was seen here. @returns true if the path need not be followed further */
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

  /** A path has ended, `depth` instructions from the start. */
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
      "count rounds in a register or on the stack, and compare the count with a constant",
    );
  }

  /**
   * Bytes of stack that a function and what it calls use together; each frame is rounded up to 32.
   */
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
      `functions that call each other use ${depth} bytes of stack together: the limit is ${STACK_SIZE}`,
      "use less stack, or let the compiler inline them",
    );
  }
}

/**
 * Static analysis of a program, without values: its functions, their control flow, and liveness.
 */
import { HELPERS } from "../../abi/programs.ts";
import { type Instruction, REGISTERS, slotsOf, targetOf } from "../instruction.ts";
import { MAX_FRAMES } from "../runner.ts";
import { endsFlow, fetchesIntoSrc } from "../structure.ts";
import { HELPER_SIGNATURES } from "./helpers.ts";
import { Refused } from "./refusal.ts";
import type { Liveness } from "./state.ts";

export interface Fn {
  /** Slots of its first instruction and past its last. */
  readonly start: number;
  readonly end: number;
  /** Numbers of the called functions. */
  readonly calls: ReadonlySet<number>;
}

export interface Flow {
  /** By slot; undefined for the second half of a wide load. */
  readonly at: readonly (Instruction | undefined)[];
  readonly functions: readonly Fn[];
  /** By slot: 1 at a join, where states are compared. */
  readonly joins: Uint8Array;
  /** By slot, before the instruction. */
  readonly liveness: readonly Liveness[];
  /** Number of the function that starts at a slot. */
  functionAt(slot: number): number;
}

/** @throws Refused if the program's structure is invalid */
export function analyseFlow(instructions: readonly Instruction[]): Flow {
  const last = instructions.at(-1)!;
  const at = new Array<Instruction | undefined>(last.index + slotsOf(last)).fill(undefined);
  for (const i of instructions) at[i.index] = i;

  const functions = findFunctions(instructions, at);
  const joins = new Uint8Array(at.length);
  for (const fn of functions) checkFunction(at, fn, joins);
  checkReachable(instructions, at);
  checkCalls(functions);
  const numbers = new Map(functions.map((fn, n) => [fn.start, n]));
  return {
    at,
    functions,
    joins,
    liveness: analyseLiveness(instructions, at),
    functionAt: (slot) => numbers.get(slot)!,
  };
}

const isLocalCall = (i: Instruction): boolean =>
  i.encoding.operation.kind === "call" && i.encoding.operation.target === "local";

function findFunctions(instructions: readonly Instruction[], at: Flow["at"]): Fn[] {
  const starts = new Set([0]);
  for (const i of instructions) if (isLocalCall(i)) starts.add(targetOf(i)!);
  const sorted = [...starts].sort((a, b) => a - b);
  const numbers = new Map(sorted.map((start, n) => [start, n]));
  return sorted.map((start, n) => {
    const end = sorted[n + 1] ?? at.length;
    const calls = new Set<number>();
    for (let slot = start; slot < end; slot++) {
      const i = at[slot];
      if (i !== undefined && isLocalCall(i)) calls.add(numbers.get(targetOf(i)!)!);
    }
    return { start, end, calls };
  });
}

function checkFunction(at: Flow["at"], fn: Fn, joins: Uint8Array): void {
  let last: Instruction | undefined;
  for (let slot = fn.start; slot < fn.end; slot++) {
    const i = at[slot];
    if (i === undefined) continue;
    last = i;
    const target = isLocalCall(i) ? undefined : targetOf(i);
    if (target === undefined) continue;
    if (target < fn.start || target >= fn.end) {
      throw new Refused(
        "STRUCTURE",
        slot,
        `jumps to instruction ${target}, which is in another function`,
        "call the function, or jump within this one",
      );
    }
    joins[target] = 1;
  }
  if (last !== undefined && !endsFlow(last)) {
    throw new Refused(
      "STRUCTURE",
      last.index,
      "control runs from here into the next function",
      "end the function with exit, or a jump",
    );
  }
}

/** Returns the slots that may follow an instruction within its function. */
function successors(i: Instruction): number[] {
  const { kind } = i.encoding.operation;
  const next = i.index + slotsOf(i);
  if (kind === "exit") return [];
  if (kind === "goto") return [targetOf(i)!];
  return kind === "jump" ? [next, targetOf(i)!] : [next];
}

/** Refuses unreachable instructions, as kernels do. */
function checkReachable(instructions: readonly Instruction[], at: Flow["at"]): void {
  const seen = new Uint8Array(at.length);
  const work = [0];
  seen[0] = 1;
  for (let slot = work.pop(); slot !== undefined; slot = work.pop()) {
    const i = at[slot]!;
    const called = isLocalCall(i) ? [targetOf(i)!] : [];
    for (const next of [...successors(i), ...called]) {
      if (seen[next]) continue;
      seen[next] = 1;
      work.push(next);
    }
  }
  const dead = instructions.find((i) => !seen[i.index]);
  if (dead === undefined) return;
  throw new Refused(
    "UNREACHABLE",
    dead.index,
    "no path leads to this instruction",
    "remove it, or the jump that skips it",
  );
}

/**
 * Refuses recursion and call chains that are too deep. Kernels count calls in dead code, too
 * (check_max_stack_depth). Functions are visited callees first, without recursion: a program may
 * have as many functions as instructions.
 */
function checkCalls(functions: readonly Fn[]): void {
  if (functions.length > MAX_FUNCTIONS) {
    throw new Refused(
      "SIZE",
      functions[MAX_FUNCTIONS]!.start,
      `${functions.length} functions: kernels take ${MAX_FUNCTIONS}`,
      "let the compiler inline some of them",
    );
  }
  const callers = functions.map((): number[] => []);
  functions.forEach(({ calls }, n) => {
    for (const called of calls) callers[called]!.push(n);
  });
  const open = functions.map(({ calls }) => calls.size);
  /** Frames of the longest chain that starts at each function. */
  const frames = functions.map(() => 1);
  const work = functions.flatMap((_, n) => (open[n] === 0 ? [n] : []));
  for (let n = work.pop(); n !== undefined; n = work.pop()) {
    for (const caller of callers[n]!) {
      frames[caller] = Math.max(frames[caller]!, frames[n]! + 1);
      open[caller]!--;
      if (open[caller] === 0) work.push(caller);
    }
  }
  const circular = open.findIndex((left) => left > 0);
  if (circular >= 0) throw recursion(functions, open);
  if (frames[0]! <= MAX_FRAMES) return;
  let at = 0;
  for (let n = 0; n < MAX_FRAMES; n++) {
    at = [...functions[at]!.calls].find((called) => frames[called] === frames[at]! - 1)!;
  }
  throw new Refused(
    "CALL_DEPTH",
    functions[at]!.start,
    `calls nest ${frames[0]} functions deep, and here starts one too many: ` +
      `the limit is ${MAX_FRAMES}`,
    "let the compiler inline some of them",
  );
}

/**
 * Names a function of the cycle: each open function calls an open one, so the walk returns to one.
 */
function recursion(functions: readonly Fn[], open: readonly number[]): Refused {
  const seen = new Set<number>();
  let at = open.findIndex((left) => left > 0);
  while (!seen.has(at)) {
    seen.add(at);
    at = [...functions[at]!.calls].find((called) => open[called]! > 0)!;
  }
  return new Refused(
    "CALL_DEPTH",
    functions[at]!.start,
    "the function that starts here calls itself, directly or through others",
    "replace the recursion by a loop with a constant bound",
  );
}

/** BPF_MAX_SUBPROGS. */
const MAX_FUNCTIONS = 256;

/**
 * Backward data-flow analysis to a fixed point: registers that are read later
 * (`live`), and those that may decide an address, a branch or a result (`relevant`). A
 * value that is only stored to the context is live, but not relevant. A value stored
 * to the stack may be reloaded, so it is relevant.
 */
function analyseLiveness(
  instructions: readonly Instruction[],
  at: Flow["at"],
): readonly Liveness[] {
  const live = new Uint16Array(at.length);
  const relevant = new Uint16Array(at.length);
  const copiesStack = instructions.some(usesFramePointerAsValue);
  const effects = new Map(instructions.map((i) => [i.index, effectOf(i, copiesStack)]));
  const before = predecessors(instructions, at.length);
  // A work list: repeated passes over a program whose blocks are in reverse order take minutes.
  const work = instructions.map((i) => i.index);
  const waiting = new Uint8Array(at.length).fill(1);
  for (let slot = work.pop(); slot !== undefined; slot = work.pop()) {
    waiting[slot] = 0;
    let liveAfter = 0;
    let relevantAfter = 0;
    for (const next of successors(at[slot]!)) {
      liveAfter |= live[next]!;
      relevantAfter |= relevant[next]!;
    }
    const { reads, writes, decides, flows } = effects.get(slot)!;
    const passed = flows !== 0 && relevantAfter & writes ? flows : 0;
    const liveHere = (liveAfter & ~writes) | reads;
    const relevantHere = (relevantAfter & ~writes) | decides | passed;
    if (liveHere === live[slot] && relevantHere === relevant[slot]) continue;
    live[slot] = liveHere;
    relevant[slot] = relevantHere;
    for (const previous of before[slot]!) {
      if (waiting[previous]) continue;
      waiting[previous] = 1;
      work.push(previous);
    }
  }
  return Array.from(live, (bits, slot) => ({ live: bits, relevant: relevant[slot]! }));
}

/** By slot: the instructions that may precede it. */
function predecessors(instructions: readonly Instruction[], slots: number): number[][] {
  const before = Array.from({ length: slots }, (): number[] => []);
  for (const i of instructions) for (const next of successors(i)) before[next]!.push(i.index);
  return before;
}

interface Effect {
  /** Registers read, written, read for a decision, and those that flow into the written ones. */
  readonly reads: number;
  readonly writes: number;
  readonly decides: number;
  readonly flows: number;
}

const bit = (n: number): number => 1 << n;
const ARGUMENTS = 0b111110;
const RESULT = 1;

function usesFramePointerAsValue(i: Instruction): boolean {
  const { operation } = i.encoding;
  const fp = REGISTERS - 1;
  if (operation.kind === "load") return false;
  return i.encoding.uses.includes("src") && i.src === fp;
}

function effectOf(i: Instruction, copiesStack: boolean): Effect {
  const { operation } = i.encoding;
  const dst = bit(i.dst);
  const src = i.encoding.uses.includes("src") ? bit(i.src) : 0;
  const none = { reads: 0, writes: 0, decides: 0, flows: 0 };
  switch (operation.kind) {
    case "alu": {
      const reads = operation.op === "mov" ? src : dst | src;
      // If one operand is an address, the other must be bounded, even if the sum is dead.
      const moves = operation.bits === 64 && (operation.op === "add" || operation.op === "sub");
      const decides = moves && operation.source === "reg" ? reads : 0;
      return { ...none, reads, writes: dst, decides, flows: reads };
    }
    case "movsx":
      return { ...none, reads: src, writes: dst, flows: src };
    case "neg":
    case "swap":
      return { ...none, reads: dst, writes: dst, flows: dst };
    case "wide":
      return { ...none, writes: dst };
    case "load":
      return { ...none, reads: src, writes: dst, decides: src };
    case "store": {
      const toStack = copiesStack || i.dst === REGISTERS - 1;
      return { ...none, reads: dst | src, decides: toStack ? dst | src : dst };
    }
    case "atomic": {
      const result = operation.op === "cmpxchg" ? RESULT : fetchesIntoSrc(i) ? src : 0;
      const reads = dst | src | (operation.op === "cmpxchg" ? RESULT : 0);
      return { ...none, reads, writes: result, decides: dst };
    }
    case "jump":
      return { ...none, reads: dst | src, decides: dst | src };
    case "exit":
      return { ...none, reads: RESULT, decides: RESULT };
    case "call": {
      const args = operation.target === "helper" ? argumentsOf(i.imm >>> 0) : ARGUMENTS;
      return { ...none, reads: args, writes: RESULT | ARGUMENTS, decides: args };
    }
    default:
      return none;
  }
}

function argumentsOf(helper: number): number {
  const name = Object.entries(HELPERS).find(([, number]) => number === helper)?.[0];
  const count =
    name === undefined ? 5 : HELPER_SIGNATURES[name as keyof typeof HELPERS].args.length;
  return ARGUMENTS & (bit(count + 1) - 1);
}

/** Returns the liveness of a caller's registers across a call: R6..R9. */
export function acrossCall(after: Liveness): Liveness {
  const kept = 0b1111000000;
  return { live: after.live & kept, relevant: after.relevant & kept };
}

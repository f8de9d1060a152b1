/**
 * The verifier: proves that a bpfhv program accesses only the context and its stack,
 * reads only initialised data, leaks no address, terminates, calls only permitted
 * helpers, and returns what its driver expects.
 */
import { MAX_INSTRUCTIONS, type ProgramForm, type ProgramName } from "../../abi/programs.ts";
import { EbpfError } from "../errors.ts";
import { decodeProgram, type Instruction, SLOT } from "../instruction.ts";
import { lineOf, type Program, type SourceLine } from "../program.ts";
import { checkStructure } from "../structure.ts";
import { formatInstruction } from "../text.ts";
import { Exploration, type Turn } from "./explore.ts";
import { describeFrame, StateLog } from "./log.ts";
import { Refused, type Rule } from "./refusal.ts";

export { explain, summarise } from "./messages.ts";
export type { Rule } from "./refusal.ts";

export interface VerifyOptions {
  /** Context size in bytes, including the public part. */
  readonly contextSize: number;
  /** The program's name. Without it, any helper may be called and any number returned. */
  readonly program?: ProgramName;
  /** Default "helperfree": no helper calls. */
  readonly form?: ProgramForm;
  /** Limit of instructions followed and states compared. */
  readonly budget?: number;
  /** Collects every state of every path (the verdict's `log`). Slow. */
  readonly log?: boolean;
}

/** One jump on the path to the refused instruction. */
export interface PathStep {
  readonly index: number;
  readonly instruction: string;
  readonly taken: boolean;
}

export interface Refusal {
  readonly rule: Rule;
  /** Slot of the instruction; -1 for the program as a whole. */
  readonly index: number;
  readonly message: string;
  /** What fixes it. */
  readonly fix: string;
  /** As text; "" if there is none. */
  readonly instruction: string;
  readonly line?: SourceLine;
  /** In the order of execution; only the latest branches if there are many. */
  readonly path: readonly PathStep[];
  /** Branches before those of `path`. */
  readonly omitted: number;
  /** Registers and stack before the instruction. */
  readonly state: string;
}

export interface Verdict {
  readonly name: string;
  readonly accepted: boolean;
  readonly refusal?: Refusal;
  /** Slots of the program. */
  readonly length: number;
  /** Instructions followed, over all paths. */
  readonly followed: number;
  /** If accepted: the largest number of instructions of one run. */
  readonly longest: number;
  /** If accepted: stack of the deepest chain of functions, in bytes. */
  readonly stack: number;
  readonly log: readonly string[];
}

/**
 * Takes at most a second and some ten megabytes on a slow machine. This
 * project's programs need a few thousand.
 */
export const DEFAULT_BUDGET = 300_000;
const SHOWN_TURNS = 24;

/** Verifies a program. Any bytes get a verdict, within the budget. */
export function verify(program: Program, options: VerifyOptions): Verdict {
  const log = options.log ? new StateLog(program) : undefined;
  const verdict = { name: program.name, length: Math.floor(program.code.length / SLOT) };
  let exploration: Exploration | undefined;
  try {
    exploration = new Exploration(decode(program.code), {
      contextSize: options.contextSize,
      form: options.form ?? "helperfree",
      program: options.program,
      budget: options.budget ?? DEFAULT_BUDGET,
      ...(log === undefined ? {} : log.hooks),
    });
    exploration.run();
    const { steps, longest, stackDepth } = exploration;
    const lines = log?.lines() ?? [];
    return { ...verdict, accepted: true, followed: steps, longest, stack: stackDepth, log: lines };
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    const refusal = refusalOf(program, error, exploration);
    const followed = exploration?.steps ?? 0;
    const lines = log?.lines() ?? [];
    return { ...verdict, accepted: false, refusal, followed, longest: 0, stack: 0, log: lines };
  }
}

/** @throws Refused */
function decode(code: Uint8Array): Instruction[] {
  if (code.length > MAX_INSTRUCTIONS * SLOT) {
    throw new Refused(
      "SIZE",
      -1,
      `${Math.floor(code.length / SLOT)} instructions: the program window holds ${MAX_INSTRUCTIONS}`,
      "make the program shorter",
    );
  }
  try {
    const instructions = decodeProgram(code);
    checkStructure(instructions);
    return instructions;
  } catch (error) {
    if (!(error instanceof EbpfError)) throw error;
    const message = error.message.replace(/^instruction \d+: /, "");
    throw new Refused(
      "STRUCTURE",
      error.index,
      message,
      "rebuild the program: it is not valid eBPF",
    );
  }
}

function refusalOf(program: Program, error: Refused, exploration?: Exploration): Refusal {
  const { rule, index, message, fix } = error;
  const line = index < 0 ? undefined : lineOf(program, index);
  const { path, omitted } = pathOf(exploration);
  const instruction = exploration?.flow.at[index];
  return {
    ...{ rule, index, message, fix, path, omitted },
    instruction: instruction === undefined ? "" : formatInstruction(instruction),
    ...(line === undefined ? {} : { line }),
    state: exploration === undefined ? "" : describeFrame(exploration.current),
  };
}

function pathOf(exploration?: Exploration): Pick<Refusal, "path" | "omitted"> {
  const path: PathStep[] = [];
  let omitted = 0;
  for (let turn: Turn | null = exploration?.turn ?? null; turn !== null; turn = turn.before) {
    if (path.length === SHOWN_TURNS) omitted++;
    else {
      const { index, taken } = turn;
      path.push({ index, taken, instruction: formatInstruction(exploration!.flow.at[index]!) });
    }
  }
  return { path: path.reverse(), omitted };
}

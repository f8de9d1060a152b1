/** The programs of a ring format: compiled for one ring size and form, once per process. */
import * as abi from "../abi/index.ts";
import {
  PROGRAM_IDS,
  PROGRAM_NAMES,
  type ProgramForm,
  type ProgramId,
  type ProgramName,
  type ProgramSet,
  programSetProblem,
  validQueueBufs,
} from "../abi/index.ts";
import { compileFunction, forgetChangedSources, type Source, sourceAt } from "../compiler/index.ts";
import type { Program } from "../ebpf/program.ts";
import type { ProgramOptions, ProgramSource, RingFormat } from "./format.ts";

export interface QueueSizes {
  readonly rxBufs: number;
  readonly txBufs: number;
}

/** In each form that a guest may ask for. Plain data. */
export type ProgramSets = Readonly<Record<ProgramForm, ProgramSet>>;

const PROGRAMS = ["rxp", "rxc", "rxi", "rxr", "txp", "txc", "txi", "txr"] as const;

/** Of the latest text of each. */
const compiled = new WeakMap<ProgramSource, { readonly text: Source; readonly sets: Sets }>();

type Sets = Map<string, ProgramSet>;

/** Programs are compiled anew if their files have changed since. */
export const forgetChanged = forgetChangedSources;

/**
 * All programs of a format, for queues of one size.
 * @throws RangeError for an invalid number of buffers; CompileError
 */
export function programsOf(format: RingFormat, options: ProgramOptions): ProgramSet {
  const { programs, name } = format;
  const { bufs, form } = options;
  if (!validQueueBufs(bufs)) {
    throw new RangeError(`${name}: ${bufs} buffers: not a power of two in 16..8192`);
  }
  if (typeof programs === "function") return programs(options);
  const text = sourceAt(programs.url);
  const known = compiled.get(programs);
  const sets: Sets = known?.text === text ? known.sets : new Map();
  compiled.set(programs, { text, sets });
  const key = `${bufs} ${form}`;
  const set = sets.get(key) ?? compile(programs, options);
  sets.set(key, set);
  return set;
}

function compile(source: ProgramSource, options: ProgramOptions): ProgramSet {
  const code = new Map<ProgramId, Uint8Array>();
  for (const program of compilePrograms(source, options)) {
    code.set(PROGRAM_IDS[program.name], program.code);
  }
  return { form: options.form, code };
}

/** All programs, with their source lines. @throws CompileError */
export function compilePrograms(
  { url, given, constants }: ProgramSource,
  options: ProgramOptions,
): (Program & { readonly name: ProgramName })[] {
  const source = sourceAt(url);
  const values = {
    ...abi,
    ...given,
    ...constants(options),
    bufs: options.bufs,
    form: options.form,
  };
  return PROGRAMS.map((name) => ({ ...compileFunction(source, name, values), name }));
}

/** What a NIC ships in one form: receive programs of one size, transmit programs of another. */
export function programSet(format: RingFormat, sizes: QueueSizes, form: ProgramForm): ProgramSet {
  const rx = programsOf(format, { bufs: sizes.rxBufs, form });
  const tx = programsOf(format, { bufs: sizes.txBufs, form });
  const code = new Map<ProgramId, Uint8Array>();
  for (const name of PROGRAM_NAMES) {
    const program = (name.startsWith("rx") ? rx : tx).code.get(PROGRAM_IDS[name]);
    if (program !== undefined) code.set(PROGRAM_IDS[name], program);
  }
  const set: ProgramSet = { form, code };
  const problem = programSetProblem(set);
  if (problem !== null) throw new Error(`ring format ${format.name}: ${problem}`);
  return set;
}

export function programSets(format: RingFormat, sizes: QueueSizes): ProgramSets {
  return {
    v1: programSet(format, sizes, "v1"),
    helperfree: programSet(format, sizes, "helperfree"),
  };
}

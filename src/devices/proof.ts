/**
 * What the verifier says of the programs that a NIC ships, in all sizes and forms that it ships.
 */
import { setImmediate } from "node:timers/promises";
import { PROGRAM_IDS, PROGRAM_NAMES, type ProgramForm, type ProgramName } from "../abi/index.ts";
import type { Program } from "../ebpf/program.ts";
import { summarise, type Verdict, verify } from "../ebpf/verifier/index.ts";
import type { ProgramOptions, RingFormat } from "./format.ts";
import { compilePrograms, programsOf, type QueueSizes } from "./program-set.ts";

export interface ProofOptions extends QueueSizes {
  readonly forms?: readonly ProgramForm[];
  /** These alone. */
  readonly programs?: readonly ProgramName[];
  readonly log?: boolean;
  /** What was accepted, in this call and earlier ones: the same code is not verified again. */
  readonly accepted?: Map<ProgramName, Accepted>;
}

interface Accepted {
  readonly code: Uint8Array;
  readonly contextSize: number;
  readonly form: ProgramForm;
  readonly verdict: Verdict;
}

export type DeviceVerdict = Verdict & { readonly form: ProgramForm };

/** Verifies a ring format's programs; each verdict has the program's name. */
export function proveDevice(device: RingFormat, options: ProofOptions): DeviceVerdict[] {
  const { forms = ["helperfree", "v1"], programs = PROGRAM_NAMES, log = false } = options;
  const accepted = options.accepted ?? new Map<ProgramName, Accepted>();
  const verdicts: DeviceVerdict[] = [];
  for (const form of forms) {
    const rx = programsOf(device, { bufs: options.rxBufs, form });
    const tx = programsOf(device, { bufs: options.txBufs, form });
    for (const name of programs) {
      const [set, bufs] = name.startsWith("rx") ? [rx, options.rxBufs] : [tx, options.txBufs];
      const code = set.code.get(PROGRAM_IDS[name]);
      if (code === undefined) continue;
      const contextSize = device.contextSize(bufs);
      const before = accepted.get(name);
      const prove = (program: Program) =>
        verify(program, { contextSize, program: name, form, log });
      let verdict = covers(before, code, contextSize, form)
        ? before.verdict
        : prove({ name, code });
      // Once more, with the lines of its source: sets hold the code alone.
      if (!verdict.accepted) verdict = prove(withLines(device, { bufs, form }, { name, code }));
      if (verdict.accepted) accepted.set(name, { code, contextSize, form, verdict });
      verdicts.push({ ...verdict, form });
    }
  }
  return verdicts;
}

function withLines(device: RingFormat, options: ProgramOptions, program: Program): Program {
  if (typeof device.programs === "function") return program;
  const compiled = compilePrograms(device.programs, options);
  return compiled.find(({ name }) => name === program.name) ?? program;
}

/** Code that was accepted without helpers is accepted with them. */
function covers(
  before: Accepted | undefined,
  code: Uint8Array,
  contextSize: number,
  form: ProgramForm,
): before is Accepted {
  if (before === undefined || before.contextSize !== contextSize) return false;
  if (before.form !== form && before.form !== "helperfree") return false;
  return Buffer.compare(before.code, code) === 0;
}

/** The verifier refuses programs, and `--allow-unverified` was not given. */
export class UnprovedError extends Error {
  readonly code = "UNPROVED";
  constructor(message: string) {
    super(message);
    this.name = "UnprovedError";
  }
}

/**
 * Decides whether verified programs may be shipped.
 * @returns for the status: "proved", or which programs are not
 * @throws UnprovedError if a program is refused, unless `allowUnverified`
 */
export function proofOf(
  device: RingFormat,
  verdicts: readonly DeviceVerdict[],
  allowUnverified: boolean,
): string {
  const refused = verdicts.filter(({ accepted }) => !accepted);
  if (refused.length === 0) return "proved";
  if (allowUnverified) {
    return `not proved: ${refused.map(({ name, form }) => `${name} (${form})`).join(", ")}`;
  }
  const first = refused[0];
  throw new UnprovedError(
    `${device.name}'s programs (${first.form}) are not safe to ship: ${summarise(first)}; ` +
      "--allow-unverified ships them all the same",
  );
}

/** Verifies one program per turn of the event loop: this thread also answers requests. */
export async function proveInTurns(
  device: RingFormat,
  sizes: QueueSizes,
): Promise<DeviceVerdict[]> {
  const verdicts: DeviceVerdict[] = [];
  const accepted = new Map<ProgramName, Accepted>();
  for (const form of ["helperfree", "v1"] as const) {
    for (const name of PROGRAM_NAMES) {
      await setImmediate();
      verdicts.push(
        ...proveDevice(device, { ...sizes, forms: [form], programs: [name], accepted }),
      );
    }
  }
  return verdicts;
}

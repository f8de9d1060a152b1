/** What a NIC ships: the programs of its device for the sizes of its queues. */
import {
  PROGRAM_IDS,
  PROGRAM_NAMES,
  type ProgramForm,
  type ProgramId,
  type ProgramSet,
  programSetProblem,
} from "../abi/index.ts";
import type { Device } from "./format.ts";

export interface QueueSizes {
  readonly rxBufs: number;
  readonly txBufs: number;
}

/** In each form that a guest may ask for. Plain data. */
export type ProgramSets = Readonly<Record<ProgramForm, ProgramSet>>;

export function programSet(device: Device, sizes: QueueSizes, form: ProgramForm): ProgramSet {
  const rx = device.programs({ bufs: sizes.rxBufs, form });
  const tx = device.programs({ bufs: sizes.txBufs, form });
  const code = new Map<ProgramId, Uint8Array>();
  for (const name of PROGRAM_NAMES) {
    const program = (name.startsWith("rx") ? rx : tx).code.get(PROGRAM_IDS[name]);
    if (program !== undefined) code.set(PROGRAM_IDS[name], program);
  }
  const set: ProgramSet = { form, code };
  const problem = programSetProblem(set);
  if (problem !== null) throw new Error(`device ${device.name}: ${problem}`);
  return set;
}

export function programSets(device: Device, sizes: QueueSizes): ProgramSets {
  return {
    v1: programSet(device, sizes, "v1"),
    helperfree: programSet(device, sizes, "helperfree"),
  };
}

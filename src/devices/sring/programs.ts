/** sring's program sets: `guest.ts`, specialised for one ring size. */

import * as abi from "../../abi/index.ts";
import {
  PROGRAM_IDS,
  type ProgramForm,
  type ProgramId,
  type ProgramSet,
  validQueueBufs,
} from "../../abi/index.ts";
import { compileFunction, sourceBeside } from "../../compiler/index.ts";
import * as layout from "./layout.ts";

export interface SringProgramOptions {
  /** Buffers of the queue: a power of two in 16..8192. */
  readonly bufs: number;
  readonly form: ProgramForm;
}

const PROGRAMS = ["rxp", "rxc", "rxi", "rxr", "txp", "txc", "txi", "txr"] as const;
const compiled = new Map<string, ProgramSet>();

/**
 * sring's program set for queues of `bufs` buffers; compiled once per process.
 * @throws RangeError for an illegal number of buffers.
 */
export function sringPrograms({ bufs, form }: SringProgramOptions): ProgramSet {
  if (!validQueueBufs(bufs)) {
    throw new RangeError(`sring: ${bufs} buffers: not a power of two in 16..8192`);
  }
  const key = `${bufs} ${form}`;
  let set = compiled.get(key);
  if (set === undefined) {
    const source = sourceBeside(import.meta.url, "guest.ts");
    const given = { ...abi, ...layout, bufs, form };
    const code = new Map<ProgramId, Uint8Array>();
    for (const name of PROGRAMS) {
      code.set(PROGRAM_IDS[name], compileFunction(source, name, given).code);
    }
    set = { form, code };
    compiled.set(key, set);
  }
  return set;
}

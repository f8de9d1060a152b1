/** Program sets: the functions of a device's `guest.ts`, specialised for one ring size, compiled once per process. */
import * as abi from "../abi/index.ts";
import {
  PROGRAM_IDS,
  type ProgramForm,
  type ProgramId,
  type ProgramSet,
  validQueueBufs,
} from "../abi/index.ts";
import { compileFunction, sourceBeside } from "../compiler/index.ts";

export interface ProgramOptions {
  /** Buffers of the queue: a power of two in 16..8192. */
  readonly bufs: number;
  readonly form: ProgramForm;
}

const PROGRAMS = ["rxp", "rxc", "rxi", "rxr", "txp", "txc", "txi", "txr"] as const;

/**
 * @param device for messages
 * @param base the caller's `import.meta.url`: `guest.ts` stands beside it
 * @param given values of the names that `guest.ts` imports, besides those of the ABI
 * @param derived values of its `declare const` that follow from the options
 * @returns what makes a set; it throws RangeError for an illegal number of buffers
 */
export function programsOf(
  device: string,
  base: string,
  given: Readonly<Record<string, unknown>>,
  derived: (options: ProgramOptions) => Readonly<Record<string, unknown>> = () => ({}),
): (options: ProgramOptions) => ProgramSet {
  const compiled = new Map<string, ProgramSet>();
  return (options) => {
    const { bufs, form } = options;
    if (!validQueueBufs(bufs)) {
      throw new RangeError(`${device}: ${bufs} buffers: not a power of two in 16..8192`);
    }
    const key = `${bufs} ${form}`;
    let set = compiled.get(key);
    if (set === undefined) {
      const source = sourceBeside(base, "guest.ts");
      const values = { ...abi, ...given, ...derived(options), bufs, form };
      const code = new Map<ProgramId, Uint8Array>();
      for (const name of PROGRAMS) {
        code.set(PROGRAM_IDS[name], compileFunction(source, name, values).code);
      }
      set = { form, code };
      compiled.set(key, set);
    }
    return set;
  };
}

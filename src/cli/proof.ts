/** The proof of what a NIC ships: every program of a device, in the sizes and forms that guests may ask for. */
import { PROGRAM_IDS, PROGRAM_NAMES, type ProgramForm, type ProgramName } from "../abi/index.ts";
import type { Device } from "../devices/device.ts";
import { summarise, type Verdict, verify } from "../ebpf/verifier/index.ts";
import { failure } from "./errors.ts";

export interface ProofOptions {
  readonly rxBufs: number;
  readonly txBufs: number;
  readonly forms?: readonly ProgramForm[];
  /** These alone. */
  readonly programs?: readonly ProgramName[];
  readonly log?: boolean;
}

export type DeviceVerdict = Verdict & { readonly form: ProgramForm };

/** Judges a device's programs; each is named after itself. */
export function proveDevice(device: Device, options: ProofOptions): DeviceVerdict[] {
  const { forms = ["helperfree", "v1"], programs = PROGRAM_NAMES, log = false } = options;
  const verdicts: DeviceVerdict[] = [];
  for (const form of forms) {
    const rx = device.programs({ bufs: options.rxBufs, form });
    const tx = device.programs({ bufs: options.txBufs, form });
    for (const name of programs) {
      const [set, bufs] = name.startsWith("rx") ? [rx, options.rxBufs] : [tx, options.txBufs];
      const code = set.code.get(PROGRAM_IDS[name]);
      if (code === undefined) continue;
      const contextSize = device.contextSize(bufs);
      verdicts.push({ ...verify({ name, code }, { contextSize, program: name, form, log }), form });
    }
  }
  return verdicts;
}

/**
 * Proves what the NIC ships, before anybody can fetch it.
 * @returns what is shown in the status: "proved", or which programs are not
 * @throws CommandError where a program is refused and that is not allowed
 */
export function proofOf(device: Device, options: ProofOptions, allowUnverified: boolean): string {
  const refused = proveDevice(device, options).filter(({ accepted }) => !accepted);
  if (refused.length === 0) return "proved";
  if (allowUnverified) {
    return `not proved: ${refused.map(({ name, form }) => `${name} (${form})`).join(", ")}`;
  }
  const first = refused[0];
  throw failure(
    `${device.name}'s programs (${first.form}) are not safe to ship: ${summarise(first)}; ` +
      "--allow-unverified ships them all the same",
  );
}

/** `--device`, the same in every command: a built-in ring format, or a module's path. */
import { validQueueBufs } from "../abi/index.ts";
import type { RingFormat } from "../devices/format.ts";
import {
  DeviceError,
  FORMAT_NAMES,
  loadFormat,
  prepareDevice,
  resolveDevice,
} from "../devices/registry.ts";
import { failure, Usage } from "../errors.ts";

export const DEVICE_WORDS = `ring format: ${FORMAT_NAMES}, or a module (./my-nic.ts)`;

export interface LoadedDevice {
  readonly format: RingFormat;
  /** What a worker loads it by. */
  readonly device: string;
}

/** @throws Usage for an unknown name, CommandError for a module that cannot be loaded */
export async function loadDevice(text: string): Promise<LoadedDevice> {
  const name = resolved(text);
  try {
    const device = await prepareDevice(name);
    return { device, format: await loadFormat(device, text) };
  } catch (error) {
    throw error instanceof DeviceError ? failure(error.message) : error;
  }
}

function resolved(text: string): string {
  try {
    return resolveDevice(text);
  } catch (error) {
    throw error instanceof DeviceError ? new Usage(error.message) : error;
  }
}

/** @throws Usage if a queue of the format cannot have so many buffers */
export function requireSize(format: RingFormat, bufs: number): void {
  const problem = validQueueBufs(bufs)
    ? format.sizeProblem(bufs)
    : "use a power of two from 16 to 8192";
  if (problem !== null) throw new Usage(`--bufs ${bufs}: ${problem}`);
}

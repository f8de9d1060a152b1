/**
 * The ring formats that there are: the built-in ones by name, any other by the URL of its module.
 * The worker of a NIC loads this file: nothing here may import the compiler.
 */
import { statSync } from "node:fs";
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";
import type { RingFormat } from "./format.ts";
import { sring } from "./sring/host.ts";
import { sringGso } from "./sring_gso/host.ts";
import { vringPacked } from "./vring_packed/host.ts";

export const FORMATS: readonly RingFormat[] = [sring, sringGso, vringPacked];

export const DEFAULT_FORMAT = sring.name;

/** "sring, sring_gso, …": for help texts. */
export const FORMAT_NAMES = FORMATS.map(({ name }) => name).join(", ");

export function findFormat(name: string): RingFormat | undefined {
  return FORMATS.find((format) => format.name === name);
}

/**
 * The built-in format that a backend serves if offloads are wanted of `name`. As the original has
 * it: its simple ring has a variant with offloads.
 */
export function withOffloads(name: string): string {
  return name === sring.name ? sringGso.name : name;
}

/** An invalid device; the message names it and says what to do. */
export class DeviceError extends Error {
  readonly code = "DEVICE";
  constructor(message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = "DeviceError";
  }
}

/**
 * What `--device TEXT` means: a built-in format's name as it is, a path as a file URL.
 * @throws DeviceError if it is neither a known name nor looks like a path or URL
 */
export function resolveDevice(text: string, cwd: string = process.cwd()): string {
  if (findFormat(text) !== undefined || /^(file|data):/.test(text)) return text;
  if (/[/\\]|\.[cm]?[jt]s$/.test(text)) return pathToFileURL(resolve(cwd, text)).href;
  throw new DeviceError(
    `unknown device "${text}": there are ${FORMAT_NAMES}, or the path of a module (./my-nic.ts)`,
  );
}

/** A module with the time of its last change: a device of another name when it was edited. */
export function versionedDevice(device: string): string {
  if (!device.startsWith("file:")) return device;
  const stats = statSync(new URL(device), { throwIfNoEntry: false });
  return stats === undefined ? device : `${device}?${Math.round(stats.mtimeMs)}`;
}

/**
 * What another thread loads in place of a device: a built-in name, or the URL of JavaScript. A
 * TypeScript module becomes a data: URL, so that the other thread needs neither compiler nor loader
 * hooks, and has the same text even if the file changes meanwhile.
 * @throws DeviceError
 */
export async function prepareDevice(device: string): Promise<string> {
  if (findFormat(device) !== undefined || !/^file:[^?]*\.m?ts(\?.*)?$/.test(device)) return device;
  const { javaScriptUrl, ModuleError } = await import("../compiler/modules/data-url.ts");
  try {
    return javaScriptUrl(device);
  } catch (error) {
    throw error instanceof ModuleError ? new DeviceError(error.message) : error;
  }
}

/**
 * Loads a ring format.
 * @param device a built-in name, or the URL of a module whose default export `defineNic` made
 * @param shown what messages call it: a data: URL says nothing
 * @throws DeviceError
 */
export async function loadFormat(device: string, shown = device): Promise<RingFormat> {
  const known = findFormat(device);
  if (known !== undefined) return known;
  const url = await prepareDevice(device);
  const loaded = await import(url).catch((error: Error) => {
    throw new DeviceError(`cannot load ${shown}: ${error.message}`, { cause: error });
  });
  if (isFormat(loaded.default)) return loaded.default;
  throw new DeviceError(`${shown} has no ring format: export default defineNic({ ... })`);
}

function isFormat(value: unknown): value is RingFormat {
  const { name, contextSize, tx, rx } = (value ?? {}) as Partial<RingFormat>;
  return [contextSize, tx, rx].every((f) => typeof f === "function") && typeof name === "string";
}

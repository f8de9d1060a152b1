/** Ring formats that a worker loads while it serves: the latest one that is not built in. */
import type { RingFormat } from "../devices/format.ts";
import { findFormat, loadFormat } from "../devices/registry.ts";

export class LoadedFormats {
  #device = "";
  #loaded: RingFormat | Error = new Error("no ring format was loaded");
  wanted = false;

  /** @returns true if `load` must be called */
  want(device: string): boolean {
    if (findFormat(device) !== undefined || device === this.#device) return false;
    this.#device = device;
    this.wanted = true;
    return true;
  }

  /** Loads what is wanted. Never rejects: `get` throws. */
  async load(): Promise<void> {
    if (!this.wanted) return;
    this.wanted = false;
    this.#loaded = await loadFormat(this.#device).catch((error: Error) => error);
  }

  get(device: string): RingFormat {
    const known = findFormat(device);
    if (known !== undefined) return known;
    if (device !== this.#device) throw new Error("the ring format was not loaded");
    if (this.#loaded instanceof Error) throw this.#loaded;
    return this.#loaded;
  }
}

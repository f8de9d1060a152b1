/**
 * What a process holds: open descriptors and resident memory, and a
 * limit on how much more it may come to hold.
 */
import { readdirSync, readFileSync, statSync } from "node:fs";
import { expect, type Resources } from "../target.ts";

/**
 * Caches and garbage that has not been collected yet; a leak of 100
 * bytes a message passes it in a million.
 */
const GROWTH_MB = 64;

export function resourcesOf(pid: number | "self"): Resources {
  const status = readFileSync(`/proc/${pid}/status`, "latin1");
  const residentMb = Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1] ?? 0) / 1024;
  const listing = pid === "self" ? 1 : 0;
  return { residentMb, descriptors: readdirSync(`/proc/${pid}/fd`).length - listing };
}

/** Remembers what was held after a warm-up, and judges what is held later. */
export class ResourceLimit {
  readonly #pid: number | "self";
  readonly #warmUp: number;
  #checks = 0;
  #first: Resources | null = null;

  /**
   * @param warmUp checks before the measure is taken: code is compiled and buffers grow until then
   */
  constructor(pid: number | "self", warmUp: number) {
    this.#pid = pid;
    this.#warmUp = warmUp;
  }

  /** @throws Find if more than allowed was added since the warm-up */
  async check(): Promise<void> {
    if (this.#pid === "self") {
      globalThis.gc?.();
      // What was collected is released by the event loop.
      await new Promise((resolve) => setImmediate(resolve));
    }
    const now = resourcesOf(this.#pid);
    if (this.#checks++ < this.#warmUp) return;
    this.#first ??= now;
    const first = this.#first;
    expect(
      now.descriptors <= first.descriptors,
      () => `descriptors leak: ${first.descriptors} after the warm-up, ${now.descriptors} now`,
    );
    expect(
      now.residentMb <= first.residentMb + GROWTH_MB,
      () =>
        `resident memory leaks: ${Math.round(first.residentMb)} MB after the warm-up, ` +
        `${Math.round(now.residentMb)} MB now`,
    );
  }
}

export const isAlive = (pid: number): boolean =>
  statSync(`/proc/${pid}`, { throwIfNoEntry: false }) !== undefined;

/** Resources of a process: open descriptors and resident memory, with a limit on their growth. */
import { readdirSync, readFileSync, statSync } from "node:fs";
import { expect, type Resources } from "../target.ts";

/**
 * Allows for caches and uncollected garbage. A leak of 100
 * bytes a message exceeds it within a million.
 */
const GROWTH_MB = 64;

export function resourcesOf(pid: number | "self"): Resources {
  const status = readFileSync(`/proc/${pid}/status`, "latin1");
  const residentMb = Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1] ?? 0) / 1024;
  const listing = pid === "self" ? 1 : 0;
  return { residentMb, descriptors: readdirSync(`/proc/${pid}/fd`).length - listing };
}

/** Time limit for closing a peer's descriptor in a separate thread (`closePeer`). */
const CLOSE_MS = 10_000;
const NEVER = new Int32Array(new SharedArrayBuffer(4));

/**
 * Waits for pending closes. Returns the open descriptors of a
 * process: at most `wanted`, if possible.
 */
export function settledFds(pid: number | "self", wanted: number): number {
  const end = performance.now() + CLOSE_MS;
  for (;;) {
    const { descriptors } = resourcesOf(pid);
    if (descriptors <= wanted || performance.now() > end) return descriptors;
    Atomics.wait(NEVER, 0, 0, 1);
  }
}

/** Records the resources after a warm-up, and compares later ones. */
export class ResourceLimit {
  readonly #pid: number | "self";
  readonly #warmUp: number;
  #checks = 0;
  #first: Resources | null = null;

  /** @param warmUp checks before the first record: until then code is compiled and buffers grow */
  constructor(pid: number | "self", warmUp: number) {
    this.#pid = pid;
    this.#warmUp = warmUp;
  }

  /** @throws Find if the growth since the warm-up exceeds the limit */
  async check(): Promise<void> {
    if (this.#pid === "self") {
      globalThis.gc?.();
      // The event loop releases what was collected.
      await new Promise((resolve) => setImmediate(resolve));
    }
    const now = resourcesOf(this.#pid);
    if (this.#checks++ < this.#warmUp) return;
    this.#first ??= now;
    const first = this.#first;
    const open = settledFds(this.#pid, first.descriptors);
    expect(
      open <= first.descriptors,
      () => `descriptors leak: ${first.descriptors} after the warm-up, ${open} now`,
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

/** Deadlines: nothing in these tests waits without one. */
import { availableParallelism, loadavg } from "node:os";

/** The kernel of all guests: a Debian suite, or `debug`, as script/lib/provision knows them. */
export const GUEST_KERNEL = process.env.BPFHV_GUEST_KERNEL ?? "trixie";
/** Is it the one that looks for mistakes, at the price of its speed? */
export const isDebugKernel = GUEST_KERNEL === "debug";
/** A machine that has more to do than it has CPUs gives a guest its share only. */
const LOAD = Math.min(4, Math.max(1, (loadavg()[0] ?? 0) / availableParallelism()));
/** Waits for a guest are so many times as long in the debug kernel, or on a busy machine. */
const PATIENCE = isDebugKernel ? 6 : LOAD;

/** For a time limit in milliseconds: what it is with this kernel, on this machine now. */
export const patience = (ms: number): number => Math.ceil(ms * PATIENCE);

export class DeadlineError extends Error {
  override readonly name = "DeadlineError";
  readonly code = "DEADLINE";
}

/**
 * Settles as the promise does, or rejects after `ms` with what was waited for (told late, so that
 * it may be current).
 */
export function within<T>(ms: number, what: string | (() => string), promise: Promise<T>) {
  return new Promise<T>((resolve, reject) => {
    const timer = setTimeout(() => {
      const text = typeof what === "string" ? what : what();
      reject(new DeadlineError(`not within ${ms} ms: ${text}`));
    }, ms);
    promise.then(resolve, reject).finally(() => clearTimeout(timer));
  });
}

export function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/**
 * Polls until `probe` gives something other than undefined or false; a slow kernel gets its factor
 * of `ms`.
 */
export async function until<T>(
  ms: number,
  what: string,
  probe: () => T | undefined | false | Promise<T | undefined | false>,
): Promise<T> {
  const end = performance.now() + patience(ms);
  for (;;) {
    const value = await probe();
    if (value !== undefined && value !== false) return value;
    if (performance.now() > end) throw new DeadlineError(`not within ${patience(ms)} ms: ${what}`);
    await sleep(50);
  }
}

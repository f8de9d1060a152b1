/** Deadlines. Every wait of these tests has one. */
import { availableParallelism, loadavg } from "node:os";

/** The kernel of all guests: a Debian suite, or `debug`, as script/lib/provision knows them. */
export const GUEST_KERNEL = process.env.BPFHV_GUEST_KERNEL ?? "trixie";
/** True for the kernel with debugging, which is slow. */
export const isDebugKernel = GUEST_KERNEL === "debug";
/** On a machine with more runnable tasks than CPUs a guest gets only its share. */
const LOAD = Math.min(4, Math.max(1, (loadavg()[0] ?? 0) / availableParallelism()));
/** Factor of waits for a guest, with the debug kernel or on a busy machine. */
const PATIENCE = (isDebugKernel ? 6 : 1) * LOAD;

/** Scales a time limit in milliseconds by this kernel and the machine's load. */
export const patience = (ms: number): number => Math.ceil(ms * PATIENCE);

export class DeadlineError extends Error {
  override readonly name = "DeadlineError";
  readonly code = "DEADLINE";
}

/**
 * Settles as the promise does, or rejects after `ms` with the
 * description, which is evaluated at that time.
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
 * Polls until `probe` returns something other than undefined or
 * false; `ms` is scaled for a slow kernel.
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

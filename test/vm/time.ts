/** Deadlines: nothing in these tests waits without one. */

/** The kernel of all guests: a Debian suite, or `debug`, as script/lib/provision knows them. */
export const GUEST_KERNEL = process.env.BPFHV_GUEST_KERNEL ?? "trixie";
/** Is it the one that looks for mistakes, at the price of its speed? */
export const isDebugKernel = GUEST_KERNEL === "debug";
/** Waits for a guest are so many times as long in it. */
const PATIENCE = isDebugKernel ? 6 : 1;

/** For a time limit in milliseconds: what it is with this kernel. */
export const patience = (ms: number): number => ms * PATIENCE;

export class DeadlineError extends Error {
  override readonly name = "DeadlineError";
  readonly code = "DEADLINE";
}

/** Settles as the promise does, or rejects after `ms` with what was waited for (told late, so that it may be current). */
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

/** Polls until `probe` gives something other than undefined or false; a slow kernel gets its factor of `ms`. */
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

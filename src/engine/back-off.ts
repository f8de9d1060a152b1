/**
 * Limits how often a ring is polled in which nothing but errors is found. A driver reclaims a
 * broken descriptor as a packet of no bytes and publishes its buffer again, so without back-off
 * host and guest livelock.
 */

/** Polls with errors before the first delay: single errors cost no time. */
const FREE_POLLS = 16;
const LONGEST_MS = 128;
/** After this time without an error the count starts again. */
const FORGOTTEN_MS = 1000;

export class BackOff {
  #errors = 0;
  #polls = 0;
  #foundAt = 0;
  /** Time of the next poll; 0: at once. */
  #until = 0;

  /** Call after each poll. @param errors all errors so far */
  polled(errors: number, moved: number): void {
    if (moved > 0) this.#polls = 0;
    if (errors === this.#errors) return;
    this.#errors = errors;
    if (moved === 0) this.#found(performance.now());
  }

  #found(now: number): void {
    if (now - this.#foundAt > FORGOTTEN_MS) this.#polls = 0;
    this.#foundAt = now;
    const over = this.#polls++ - FREE_POLLS;
    if (over >= 0) this.#until = now + Math.min(2 ** over, LONGEST_MS);
  }

  /** Milliseconds until the next poll; 0: none. */
  get leftMs(): number {
    if (this.#until === 0) return 0;
    const left = this.#until - performance.now();
    if (left > 0) return left;
    this.#until = 0;
    return 0;
  }

  /** Polls at once again. */
  end(): void {
    this.#until = 0;
    this.#polls = 0;
  }
}

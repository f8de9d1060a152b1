/**
 * How often a direction looks at a ring in which it finds nothing but errors. A driver takes a
 * broken descriptor back as a packet of no bytes and publishes the buffer anew, so host and guest
 * would hand it to and fro as fast as they can.
 */

/** Polls in a row without a rest: single errors cost no time. */
const FREE_LOOKS = 16;
const LONGEST_MS = 128;
/** After so long without an error the count begins anew. */
const FORGOTTEN_MS = 1000;

export class Rest {
  #errors = 0;
  #looks = 0;
  #foundAt = 0;
  /** 0: does not rest. */
  #until = 0;

  /** After each look. `errors` is a total. */
  looked(errors: number, moved: number): void {
    if (moved > 0) this.#looks = 0;
    if (errors === this.#errors) return;
    this.#errors = errors;
    if (moved === 0) this.#found(performance.now());
  }

  #found(now: number): void {
    if (now - this.#foundAt > FORGOTTEN_MS) this.#looks = 0;
    this.#foundAt = now;
    const over = this.#looks++ - FREE_LOOKS;
    if (over >= 0) this.#until = now + Math.min(2 ** over, LONGEST_MS);
  }

  /** Milliseconds until the next look; 0: now. */
  get leftMs(): number {
    if (this.#until === 0) return 0;
    const left = this.#until - performance.now();
    if (left > 0) return left;
    this.#until = 0;
    return 0;
  }

  /** The next look is now. */
  end(): void {
    this.#until = 0;
    this.#looks = 0;
  }
}

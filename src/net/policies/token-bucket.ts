/**
 * A token bucket: it fills at a rate, holds a burst at most, and is taken from. It may be taken
 * from below 0, for what cannot be divided or was not known before; then it fills up first.
 */

export interface TokenRate {
  /** Tokens a second. */
  readonly rate: number;
  /** The most that it holds. */
  readonly burst: number;
}

/** What sums of fractions may lack: else a wait that is over would be followed by another one. */
const ROUNDING = 1e-6;

export class TokenBucket {
  readonly burst: number;
  level: number;
  readonly #perMs: number;
  #filledAt: number;

  /** A full one. @param now in milliseconds, on the clock of `fill` */
  constructor({ rate, burst }: TokenRate, now: number) {
    this.burst = burst;
    this.level = burst;
    this.#perMs = rate / 1000;
    this.#filledAt = now;
  }

  fill(now: number): void {
    const { level, burst } = this;
    this.level = Math.min(burst, level + (now - this.#filledAt) * this.#perMs);
    this.#filledAt = now;
  }

  /** Are there tokens for `count`? A full bucket has enough for anything. */
  has(count: number): boolean {
    return this.level + ROUNDING >= Math.min(count, this.burst);
  }

  take(count: number): void {
    this.level -= count;
  }

  /** Milliseconds in which it gains so many. */
  msFor(count: number): number {
    return count / this.#perMs;
  }

  /** Milliseconds from the last `fill` until `has(count)`. */
  msUntil(count: number): number {
    return Math.max(0, (Math.min(count, this.burst) - this.level) / this.#perMs);
  }
}

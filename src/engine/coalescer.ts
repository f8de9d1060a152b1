/**
 * Holds the interrupt of a queue back, so that one serves the packets of a while (ability
 * COALESCE). A setting of 0 holds none: that is how a NIC starts.
 */

/** Bound of an adaptive queue that was given none. */
const ADAPTIVE_US = 200;
/** The first step from 0. */
const STEP_US = 16;
/** An interrupt for at least so many packets: they come faster than they are announced. */
const MANY = 8;
/** An interrupt for at most so many: somebody may wait for each. */
const FEW = 2;

export class Coalescer {
  #adaptive = false;
  #boundUs = 0;
  #delayUs = 0;
  /** Packets since the last interrupt. */
  #packets = 0;
  /** Time at which the held interrupt is due; 0: none is held. */
  #dueAt = 0;

  /** @param us from 0 to MAX_COALESCE_US; adaptive: the longest time */
  set(us: number, adaptive: boolean): void {
    this.#adaptive = adaptive;
    this.#boundUs = adaptive && us === 0 ? ADAPTIVE_US : us;
    this.#delayUs = adaptive ? 0 : us;
  }

  /** Call with packets that were completed. */
  completed(packets: number): void {
    this.#packets += packets;
  }

  /** The guest wants an interrupt. @returns true: send it now; false: it is held */
  wanted(): boolean {
    if (this.#delayUs === 0) {
      this.#sent();
      return true;
    }
    if (this.#dueAt === 0) this.#dueAt = performance.now() + this.#delayUs / 1000;
    return false;
  }

  /** @returns true: a held interrupt is due, and held no more */
  expired(): boolean {
    if (this.#dueAt === 0 || performance.now() < this.#dueAt) return false;
    this.#sent();
    return true;
  }

  /** Ends the wait. @returns true if an interrupt was held */
  release(): boolean {
    if (this.#dueAt === 0) return false;
    this.#sent();
    return true;
  }

  get holds(): boolean {
    return this.#dueAt !== 0;
  }

  /** Milliseconds until the held interrupt is due; Infinity: none is held. */
  get leftMs(): number {
    return this.#dueAt === 0 ? Number.POSITIVE_INFINITY : this.#dueAt - performance.now();
  }

  #sent(): void {
    this.#dueAt = 0;
    if (this.#adaptive) this.#adapt();
    this.#packets = 0;
  }

  #adapt(): void {
    const us = this.#delayUs;
    if (this.#packets >= MANY) this.#delayUs = Math.min(this.#boundUs, Math.max(2 * us, STEP_US));
    else if (this.#packets <= FEW) this.#delayUs = us <= STEP_US ? 0 : us / 2;
  }
}

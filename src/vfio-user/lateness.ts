/**
 * Tells which requests may have waited for too long, because the server was stopped or busy: their
 * client may have given them up. QEMU does after 5 s. Of an answer that it does not expect it reads
 * the header only, takes the data for the next header, and ends the connection.
 */
export class Lateness {
  readonly #limitMs: number;
  /** Time of the last receive. */
  #receivedAt = 0;
  /** What is being received may have arrived in a long pause. */
  #paused = false;

  constructor(limitMs: number) {
    this.#limitMs = limitMs;
  }

  /** A client has come. @param agoMs it was there already, and nothing was received for so long */
  restart(agoMs = 0): void {
    this.#receivedAt = performance.now() - agoMs;
    this.#paused = false;
  }

  /** Before each receive. @param emptied the one before took all that had arrived by then */
  receiving(emptied: boolean): void {
    const now = performance.now();
    if (now - this.#receivedAt > this.#limitMs) this.#paused = true;
    else if (emptied) this.#paused = false;
    this.#receivedAt = now;
  }

  /** True if the current request may be too old for an answer. */
  get late(): boolean {
    return this.#paused || performance.now() - this.#receivedAt > this.#limitMs;
  }
}

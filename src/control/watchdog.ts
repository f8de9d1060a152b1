/**
 * Notices a hung worker. A worker that hangs in a system
 * call runs no JavaScript, answers nothing and cannot be ended, so whoever
 * waits for it must hear it from the main thread.
 */
import { watchCpuWaits, whatHolds } from "../os/thread.ts";
import { PULSE } from "./waiting-worker.ts";

/** Between looks. */
const LOOK_MS = 1000;
/** An idle loop turns once a second; after so many looks without a turn it hangs. */
const LOOKS = 3;

export interface WatchdogEvents {
  /** Once for each hang. `what` names the system call. */
  stuck(what: string): void;
  /** It turns again. */
  moved(seconds: number): void;
}

export class Watchdog {
  readonly #pulse: Int32Array;
  readonly #events: WatchdogEvents;
  readonly #timer: NodeJS.Timeout;
  #turns = 0;
  #still = 0;

  /** @param pulse of a `WaitingWorker` */
  constructor(pulse: Int32Array, events: WatchdogEvents, lookMs = LOOK_MS) {
    this.#pulse = pulse;
    this.#events = events;
    this.#timer = setInterval(() => this.#look(), lookMs);
    this.#timer.unref();
  }

  /** Has its loop begun? */
  get begun(): boolean {
    return Atomics.load(this.#pulse, PULSE.turns) !== 0;
  }

  /** What holds the worker now. */
  get held(): string {
    const thread = Atomics.load(this.#pulse, PULSE.thread);
    return thread === 0 ? "its start" : whatHolds(thread);
  }

  /** @returns for how many milliseconds from now on the worker has waited for a CPU */
  watchCpuWaits(): () => number {
    const thread = Atomics.load(this.#pulse, PULSE.thread);
    return thread === 0 ? () => 0 : watchCpuWaits(thread);
  }

  #look(): void {
    const turns = Atomics.load(this.#pulse, PULSE.turns);
    if (turns !== this.#turns) {
      if (this.#still >= LOOKS) this.#events.moved(this.#still);
      this.#turns = turns;
      this.#still = 0;
    } else if (turns !== 0 && ++this.#still === LOOKS) {
      this.#events.stuck(`the NIC's worker has hung for ${LOOKS} s: it is in ${this.held}`);
    }
  }

  close(): void {
    clearInterval(this.#timer);
  }
}

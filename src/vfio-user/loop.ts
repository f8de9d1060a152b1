/**
 * A loop for simple devices: the server's socket and a few timers. Devices with queues bring their
 * own loop.
 */
import { setImmediate as nextTurn } from "node:timers/promises";
import { Epoll } from "../os/epoll.ts";
import type { VfioUserServer } from "./server.ts";

/** Longest wait; then signals and other callbacks of the process run. */
const MAX_WAIT_MS = 20;
/** Iterations that serve messages before other callbacks of the process run. */
const ITERATIONS_PER_TURN = 64;

export interface Timer {
  readonly periodMs: number;
  readonly callback: () => void;
  due: number;
}

export class ServerLoop {
  readonly #server: VfioUserServer;
  readonly #timers = new Set<Timer>();
  #running = false;

  constructor(server: VfioUserServer) {
    this.#server = server;
  }

  /** Calls back every `periodMs`, from the loop; missed calls are skipped. */
  every(periodMs: number, callback: () => void): Timer {
    const timer = { periodMs, callback, due: performance.now() + periodMs };
    this.#timers.add(timer);
    return timer;
  }

  cancel(timer: Timer): void {
    this.#timers.delete(timer);
  }

  /** Serves until `stop`, then closes the server. */
  async run(): Promise<void> {
    const epoll = new Epoll(8);
    this.#server.register(epoll, 0);
    this.#running = true;
    try {
      while (this.#running) {
        this.#serve(epoll);
        await nextTurn();
      }
    } finally {
      this.#server.close();
      epoll.close();
    }
  }

  stop(): void {
    this.#running = false;
  }

  #serve(epoll: Epoll): void {
    for (let round = 0; round < ITERATIONS_PER_TURN && this.#running; round++) {
      const ready = epoll.wait(round === 0 ? 0 : this.#waitMs());
      if (ready > 0) this.#server.handleReadable();
      this.#server.handleTimers();
      this.#fireTimers();
      if (ready === 0 && round > 0) return;
    }
  }

  #waitMs(): number {
    let wait = this.#server.timeoutMs < 0 ? MAX_WAIT_MS : this.#server.timeoutMs;
    const now = performance.now();
    for (const { due } of this.#timers) wait = Math.min(wait, Math.ceil(due - now));
    return Math.max(0, Math.min(wait, MAX_WAIT_MS));
  }

  #fireTimers(): void {
    if (this.#timers.size === 0) return;
    const now = performance.now();
    for (const timer of this.#timers) {
      if (timer.due > now) continue;
      timer.due = Math.max(timer.due + timer.periodMs, now);
      timer.callback();
    }
  }
}

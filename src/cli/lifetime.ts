/**
 * The end of a long-running command. Signals ask for it, and what the command has made is removed
 * in one place, on every way out: an orderly stop, an error, `process.exit`, a signal that comes
 * before all is up.
 */

import { constants } from "node:os";
import { signalAtParentsEnd } from "../os/process.ts";

/** A terminal that hangs up and Ctrl-\ end in order, too. */
const SIGNALS: readonly NodeJS.Signals[] = ["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT"];
/** Ctrl-C reaches a process twice at once if its starter passes the signal on. */
const SAME_SIGNAL_MS = 500;

export class Lifetime {
  /** The signal that asks for an orderly stop. */
  readonly asked: Promise<NodeJS.Signals>;
  #steps: (() => void)[] = [];
  #ask!: (signal: NodeJS.Signals) => void;
  #askedAt = 0;

  /** Make one before anything that is to be removed. */
  constructor() {
    this.asked = new Promise((resolve) => {
      this.#ask = resolve;
    });
    for (const signal of SIGNALS) process.on(signal, () => this.#signal(signal));
    process.once("exit", () => this.end());
    this.followNpx();
  }

  /**
   * `npx bpfhv serve` is three processes: npm, a shell, and this one. A signal to the first ends
   * two of them, and left this one behind; so it ends with the shell. Call it again after a change
   * of user.
   */
  followNpx(): void {
    if (process.env.npm_lifecycle_event !== "npx") return;
    const { ppid } = process;
    signalAtParentsEnd(constants.signals.SIGTERM);
    if (process.ppid !== ppid) process.kill(process.pid, "SIGTERM");
  }

  #signal(signal: NodeJS.Signals): void {
    const now = performance.now();
    if (this.#askedAt === 0) {
      this.#askedAt = now;
      this.#ask(signal);
    } else if (now - this.#askedAt > SAME_SIGNAL_MS) {
      // Asked again: whatever hangs, and a thread in a system call cannot be ended, it hangs no
      // longer.
      this.end();
      process.kill(process.pid, "SIGKILL");
    }
  }

  /** `step` removes what was just made. Steps run once, the last one first. */
  atEnd(step: () => void): void {
    this.#steps.push(step);
  }

  /** Removes everything, whatever a step throws. */
  end(): void {
    for (let step = this.#steps.pop(); step !== undefined; step = this.#steps.pop()) {
      try {
        step();
      } catch (error) {
        process.stderr.write(`bpfhv: ${(error as Error).message}\n`);
      }
    }
  }
}

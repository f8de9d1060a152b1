/** Pings a guest continually and tells when it did not reply. */
import type { ChildProcess } from "node:child_process";
import type { Netns } from "./netns.ts";
import { until } from "./time.ts";

const INTERVAL_MS = 50;
/** Traffic flows if this many replies came in a row, none of them late. */
const FLOW = 5;

export class Replies {
  readonly #child: ChildProcess;
  readonly #times: number[] = [];

  constructor(netns: Netns, ping: string, peer: string) {
    this.#child = netns.spawn([ping, "-i", `${INTERVAL_MS / 1000}`, peer]);
    this.#child.stdout?.on("data", (text: Buffer) => {
      const replies = String(text).match(/bytes from/g)?.length ?? 0;
      for (let n = 0; n < replies; n++) this.#times.push(performance.now());
    });
    this.#child.stderr?.resume();
    this.#child.on("error", () => {});
  }

  /** Waits until replies come regularly again, from now on. */
  async flow(ms: number, when: () => Promise<string> | string = () => ""): Promise<void> {
    const now = performance.now();
    try {
      await until(ms, "replies", () => this.#times.filter((time) => time > now).length >= FLOW);
    } catch (error) {
      throw new Error(`no replies ${await when()}`, { cause: error });
    }
  }

  /** The longest time in milliseconds between two replies, from the last one before `start` on. */
  longestGapSince(start: number): number {
    const before = this.#times.findLast((time) => time <= start) ?? start;
    const times = [before, ...this.#times.filter((time) => time > start)];
    return times.reduce((most, time, i) => Math.max(most, time - (times[i - 1] ?? time)), 0);
  }

  stop(): void {
    this.#child.kill("SIGKILL");
  }
}

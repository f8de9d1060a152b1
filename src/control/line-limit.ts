/**
 * A bound on the lines that a guest or a VMM can cause: so many a second, then one that counts the
 * rest and repeats the last of them: lines of an earlier guest do not hide the state of this one.
 */

import type { ToMain } from "./messages.ts";

const WINDOW_MS = 1000;
/** Lines of a log that others can cause, a second. */
const LOG_LINES = 10;

type LogLine = Extract<ToMain, { readonly kind: "log" }>;

/** What a worker logs of a guest and its VMM, on its way to the main thread. */
export function limitedLog(tell: (line: LogLine) => void): LineLimit<LogLine> {
  return new LineLimit<LogLine>(LOG_LINES, tell, (suppressed, { text }) => ({
    ...{ kind: "log", level: "warn" },
    text: `suppressed ${suppressed} more messages, the last: ${text}`,
  }));
}

export class LineLimit<Line> {
  readonly #perSecond: number;
  readonly #out: (line: Line) => void;
  readonly #summary: (suppressed: number, last: Line) => Line;
  #left: number;
  #suppressed = 0;
  #last: Line | null = null;
  #since: number;

  /** @param summary the line that tells how many were left out, and the last of them */
  constructor(
    perSecond: number,
    out: (line: Line) => void,
    summary: (suppressed: number, last: Line) => Line,
    now = performance.now(),
  ) {
    this.#perSecond = perSecond;
    this.#out = out;
    this.#summary = summary;
    this.#left = perSecond;
    this.#since = now;
  }

  line(line: Line, now = performance.now()): void {
    this.tick(now);
    if (this.#left > 0) {
      this.#left--;
      this.#out(line);
      return;
    }
    this.#suppressed++;
    this.#last = line;
  }

  /**
   * To be called about once a second: a second after the first line, logs what was left out and
   * allows as many again.
   */
  tick(now = performance.now()): void {
    if (now - this.#since < WINDOW_MS) return;
    this.#since = now;
    this.#left = this.#perSecond;
    if (this.#last === null) return;
    this.#out(this.#summary(this.#suppressed, this.#last));
    this.#suppressed = 0;
    this.#last = null;
  }
}

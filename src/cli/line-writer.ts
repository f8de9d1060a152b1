/**
 * Lines to standard output or error. A reader that does not read loses lines, whose number is
 * reported; no thread waits.
 */
import { Output } from "../os/output.ts";

/** What waits for a slow reader: some thousand lines. */
const MAX_PENDING = 256 * 1024;
const RETRY_MS = 50;
/** At the end, a reader has so long to take what waits. */
const LAST_MS = 200;

export class LineWriter {
  readonly #output: Output;
  readonly #lostLine: (lost: number) => string;
  readonly #queue: Buffer[] = [];
  #pending = 0;
  /** Of the first line in the queue. */
  #written = 0;
  #lost = 0;
  #dead = false;
  #timer: NodeJS.Timeout | undefined;

  /** @param lostLine tells how many lines are missing where it stands */
  constructor(fd: number, lostLine: (lost: number) => string) {
    this.#output = new Output(fd);
    this.#lostLine = lostLine;
  }

  /** Text of whole lines. */
  write(text: string): void {
    if (this.#dead) return;
    const bytes = Buffer.from(text);
    if (this.#lost > 0 || this.#pending + bytes.length > MAX_PENDING) this.#lost++;
    else this.#push(bytes);
    this.#flush();
  }

  /**
   * What is not taken within a moment is lost. Blocks for that moment only if the reader is slow.
   */
  close(): void {
    clearTimeout(this.#timer);
    const end = performance.now() + LAST_MS;
    const clock = new Int32Array(new SharedArrayBuffer(4));
    while (!this.#dead && this.#pending > 0 && performance.now() < end) {
      this.#drain();
      if (this.#pending > 0) Atomics.wait(clock, 0, 0, 5);
    }
    this.#dead = true;
    this.#output.close();
  }

  #push(bytes: Buffer): void {
    this.#queue.push(bytes);
    this.#pending += bytes.length;
  }

  #flush(): void {
    this.#drain();
    if (this.#dead || this.#pending === 0) return;
    // The process does not live on for a reader.
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined;
      this.#flush();
    }, RETRY_MS).unref();
  }

  #drain(): void {
    try {
      while (this.#pending > 0) {
        const line = this.#queue[0];
        const n = this.#output.write(line, this.#written);
        if (n === 0) return;
        this.#pending -= n;
        this.#written += n;
        if (this.#written === line.length) this.#next();
      }
    } catch {
      // The reader has gone, or its disk is full: there is no other place to say so.
      this.#dead = true;
      this.#queue.length = 0;
    }
  }

  #next(): void {
    this.#queue.shift();
    this.#written = 0;
    if (this.#pending > 0 || this.#lost === 0) return;
    const lost = this.#lost;
    this.#lost = 0;
    this.#push(Buffer.from(this.#lostLine(lost)));
  }
}

/**
 * Answers: built in one buffer, sent with one call each, optionally delayed (to test clients of
 * slow servers).
 */
import { hexOf, readRecord } from "../memory/record.ts";
import { ETIMEDOUT } from "../os/errors.ts";
import { type Mapping, mapAnonymous } from "../os/memory.ts";
import { sendMessage } from "../os/messages.ts";
import type { Counters } from "./counters.ts";
import { FLAG, HEADER, MAX_MESSAGE } from "./protocol.ts";

interface Delayed {
  readonly due: number;
  readonly bytes: Uint8Array;
}

/** Answers that were not sent yet (`delayMs`). */
export interface RepliesRecord {
  readonly version: 1;
  readonly late: readonly { readonly bytes: string }[];
}

/** Maximum number of delayed answers in a record: a client waits for most of its answers. */
const MAX_LATE = 1024;

export class ReplyWriter {
  readonly #memory: Mapping = mapAnonymous(MAX_MESSAGE);
  readonly bytes = new Uint8Array(this.#memory.view(0, MAX_MESSAGE));
  /** Payloads are built here, from HEADER.SIZE on. */
  readonly data = new DataView(this.bytes.buffer);
  readonly #delayMs: number;
  readonly #lateAfterMs: number;
  readonly #counters: Counters;
  readonly #queue: Delayed[] = [];

  /** @param lateAfterMs delayed answers that are overdue for longer lose their data */
  constructor(counters: Counters, delayMs = 0, lateAfterMs = Number.POSITIVE_INFINITY) {
    this.#counters = counters;
    this.#delayMs = delayMs;
    this.#lateAfterMs = lateAfterMs;
  }

  /**
   * Answers a request with the payload in the buffer, or with `errno` alone if that is not 0.
   * @returns false if the client is gone or does not read its answers
   */
  reply(fd: number, id: number, command: number, errno: number, payload: number): boolean {
    const { data } = this;
    data.setUint16(HEADER.id, id, true);
    data.setUint16(HEADER.command, command, true);
    const size = this.#finish(errno, payload);
    if (this.#delayMs === 0) return this.#send(fd, size);
    this.#queue.push({ due: performance.now() + this.#delayMs, bytes: this.bytes.slice(0, size) });
    return true;
  }

  /** @returns the size of the answer */
  #finish(errno: number, payload: number): number {
    const { data } = this;
    const size = HEADER.SIZE + (errno === 0 ? payload : 0);
    data.setUint32(HEADER.size, size, true);
    data.setUint32(HEADER.flags, errno === 0 ? FLAG.reply : FLAG.reply | FLAG.error, true);
    data.setUint32(HEADER.errno, errno, true);
    return size;
  }

  #send(fd: number, size: number): boolean {
    try {
      return sendMessage(fd, this.#memory.address, size) === size;
    } catch {
      return false;
    }
  }

  /** Milliseconds until the next delayed answer is due; -1: there is none. */
  get timeoutMs(): number {
    const first = this.#queue[0];
    return first === undefined ? -1 : Math.max(0, Math.ceil(first.due - performance.now()));
  }

  /** Sends the delayed answers that are due. @returns false as `reply` does */
  flush(fd: number): boolean {
    while (this.timeoutMs === 0) {
      const { due, bytes } = this.#queue.shift()!;
      this.bytes.set(bytes);
      let size = bytes.length;
      if (size > HEADER.SIZE && performance.now() - due > this.#lateAfterMs) {
        this.#counters.lateAnswers++;
        size = this.#finish(ETIMEDOUT, 0);
      }
      if (!this.#send(fd, size)) return false;
    }
    return true;
  }

  /** Returns the delayed answers. */
  save(): RepliesRecord {
    return { version: 1, late: this.#queue.map(({ bytes }) => ({ bytes: hexOf(bytes) })) };
  }

  /**
   * Checks a record. Delayed answers are due at once.
   * @returns the function that restores it, which does not fail
   * @throws RecordError
   */
  prepare(name: string, value: unknown): () => void {
    const due = performance.now();
    const late = readRecord(name, value, 1, (record) =>
      record.list("late", MAX_LATE, (item) => ({ due, bytes: item.bytes("bytes", MAX_MESSAGE) })),
    );
    return () => {
      this.#queue.splice(0, this.#queue.length, ...late);
    };
  }

  clear(): void {
    this.#queue.length = 0;
  }

  close(): void {
    this.clear();
    this.#memory.unmap();
  }
}

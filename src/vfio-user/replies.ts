/**
 * Answers: built in one buffer, sent with one call each, optionally delayed (to test clients of
 * slow servers).
 */
import { hexOf, readRecord } from "../memory/record.ts";
import { ETIMEDOUT } from "../os/errors.ts";
import { type Mapping, mapAnonymous } from "../os/memory.ts";
import { sendMessage } from "../os/messages.ts";
import type { Counters } from "./counters.ts";
import type { MessageJournal } from "./journal.ts";
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
  readonly #memory: Mapping | null;
  readonly #address: number;
  readonly bytes: Uint8Array;
  /** Payloads are built here, from HEADER.SIZE on. */
  readonly data: DataView;
  readonly #journal: MessageJournal | null;
  readonly #delayMs: number;
  readonly #lateAfterMs: number;
  readonly #counters: Counters;
  readonly #queue: Delayed[] = [];

  /** @param lateAfterMs delayed answers that are overdue for longer lose their data */
  constructor(
    counters: Counters,
    delayMs = 0,
    lateAfterMs = Number.POSITIVE_INFINITY,
    journal: MessageJournal | null = null,
  ) {
    this.#journal = journal;
    this.#memory = journal === null ? mapAnonymous(MAX_MESSAGE) : null;
    this.#address = this.#memory?.address ?? journal!.replies.address;
    const view = this.#memory?.view(0, MAX_MESSAGE) ?? journal!.replies.view;
    this.bytes = new Uint8Array(view);
    this.data = new DataView(view);
    this.#counters = counters;
    this.#delayMs = delayMs;
    this.#lateAfterMs = lateAfterMs;
  }

  /**
   * Makes the answer to a request of the payload in the buffer, or of `errno` alone if that is not
   * 0. @returns its size
   */
  build(id: number, command: number, errno: number, payload: number): number {
    const { data } = this;
    data.setUint16(HEADER.id, id, true);
    data.setUint16(HEADER.command, command, true);
    return this.#finish(errno, payload);
  }

  /**
   * Sends the answer that was built.
   * @returns false if the client is gone or does not read its answers
   */
  send(fd: number, size: number): boolean {
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
      const journal = this.#journal;
      return (journal?.send(fd, size) ?? sendMessage(fd, this.#address, size)) === size;
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
    this.#memory?.unmap();
  }
}

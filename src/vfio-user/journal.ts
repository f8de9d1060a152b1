/**
 * What a server remembers of its client's messages in memory that outlives the process, so that
 * another process can go on after a crash: each message takes effect once, and is answered once.
 *
 * Messages stay in the socket until they have been executed: they are peeked at, executed, and then
 * taken. `executed` and `consumed` count the bytes of both since the client connected. Where a call
 * may have been made that the process did not live to see return, the kernel's own count of it
 * tells (`CountedMessage`). What is in a message that was not executed to the end is executed anew,
 * by a process that has the state from before it.
 */
import { CountedMessage } from "../os/counted-messages.ts";
import { type Mapping, PAGE } from "../os/memory.ts";
import { MAX_MESSAGE } from "./protocol.ts";

/** Words of the first page. */
const WORD = { executed: 0, consumed: 1, from: 2, replySize: 3, replyAt: 4, lookedAt: 5 } as const;
const RECEIVED = 256;
const SENT = 384;
const SCRATCH = 2 * PAGE;
const SCRATCH_BYTES = 16384;
const REPLY = SCRATCH + SCRATCH_BYTES;

/** What a journal needs, in whole pages; the second page is the caller's. */
export const JOURNAL_BYTES = REPLY + Math.ceil(MAX_MESSAGE / PAGE) * PAGE;

/** Of the clock that `performance.now` reads, which begins anew in each process. */
const ORIGIN = Number(process.hrtime.bigint() / 1_000_000n) - performance.now();
const sinceBoot = (): number => Math.round(ORIGIN + performance.now()) | 0;

export class MessageJournal {
  /** Answers are built here. */
  readonly replies: { readonly address: number; readonly view: ArrayBuffer };
  /**
   * Saves the state in which the message that ends at `executed` has been handled. Nothing is
   * answered before.
   */
  commit: (executed: number) => void = () => {};
  /** A client has connected, and no state knows of it yet. */
  accepted: (fd: number) => void = () => {};
  /** A crash is being recovered from: `recover` follows `adopt`. */
  recovers = false;
  readonly #words: Int32Array;
  readonly #scratch: number;
  readonly #received: CountedMessage;
  readonly #sent: CountedMessage;
  /** `consumed` when the last peek was made. */
  #base = 0;

  constructor(memory: Mapping) {
    this.#words = new Int32Array(memory.view(0, 128));
    const page = memory.view(0, PAGE);
    const message = (at: number) =>
      new CountedMessage(new DataView(page, at, CountedMessage.BYTES), memory.address + at);
    this.#received = message(RECEIVED);
    this.#sent = message(SENT);
    this.#scratch = memory.address + SCRATCH;
    const address = memory.address + REPLY;
    this.replies = { address, view: memory.view(REPLY, JOURNAL_BYTES - REPLY) };
  }

  #word(index: number): number {
    return Atomics.load(this.#words, index);
  }

  /** In program order: what is read after a crash depends on it. */
  #set(index: number, value: number): void {
    Atomics.store(this.#words, index, value);
  }

  get executed(): number {
    return this.#word(WORD.executed) >>> 0;
  }

  /** Another client's bytes are counted from 0 on. */
  restart(): void {
    this.#set(WORD.replySize, 0);
    this.#received.reset();
    this.#set(WORD.consumed, this.#word(WORD.executed));
    this.#words[WORD.lookedAt] = sinceBoot();
  }

  /** Call it before the socket is peeked at. */
  begin(): void {
    this.#base = this.#word(WORD.consumed);
    this.#words[WORD.lookedAt] = sinceBoot();
  }

  /** Bytes at the front of the socket that are executed: after a crash there may be some. */
  get unconsumed(): number {
    return (this.#word(WORD.executed) - this.#word(WORD.consumed)) | 0;
  }

  /** Milliseconds since the socket was last looked at, by whichever process. */
  get silentMs(): number {
    return Math.max(0, (sinceBoot() - this.#words[WORD.lookedAt]) | 0);
  }

  /**
   * A message has taken effect.
   * @param end of it, in bytes that the last peek brought
   * @param reply bytes of its answer in `replies`, which are sent next; 0: it gets none
   * @param changed the state that is saved is another one now
   */
  handled(end: number, reply: number, changed: boolean): void {
    const at = (this.#base + end) | 0;
    this.#set(WORD.replySize, 0);
    if (reply > 0) {
      this.#sent.reset();
      this.#set(WORD.replyAt, at);
      this.#set(WORD.replySize, reply);
    }
    if (changed) this.commit(at >>> 0);
    this.#set(WORD.executed, at);
  }

  /** @returns the bytes sent, or -1 if the socket is full */
  send(fd: number, length: number): number {
    return this.#sent.send(fd, this.replies.address, length);
  }

  /** Takes bytes that were peeked at, and the originals of their descriptors. */
  consume(fd: number, length: number): void {
    for (let left = length; left > 0; ) {
      const part = Math.min(left, SCRATCH_BYTES);
      this.#received.reset();
      this.#set(WORD.from, this.#word(WORD.consumed));
      const n = this.#received.receive(fd, this.#scratch, part);
      if (n <= 0) return;
      this.#set(WORD.consumed, (this.#word(WORD.consumed) + n) | 0);
      left -= n;
    }
  }

  /**
   * After a crash: finds out what was executed and is still in the socket, and sends the answer
   * that was not sent.
   * @param saved `executed` of the state that was saved last
   * @returns false if the socket and the journal contradict each other
   */
  recover(fd: number, saved: number): boolean {
    this.recovers = false;
    if (((saved - this.#word(WORD.executed)) | 0) > 0) this.#set(WORD.executed, saved | 0);
    const { count } = this.#received;
    // The process saw the call return only if it added the count.
    if (count > 0 && this.#word(WORD.from) === this.#word(WORD.consumed)) {
      this.#set(WORD.consumed, (this.#word(WORD.consumed) + count) | 0);
    }
    this.#received.reset();
    if (this.unconsumed < 0 || this.unconsumed > MAX_MESSAGE + SCRATCH_BYTES) return false;
    const size = this.#word(WORD.replySize);
    if (size <= 0 || size > MAX_MESSAGE || this.#sent.count > 0) return true;
    if (this.#word(WORD.replyAt) !== this.#word(WORD.executed)) return true;
    return this.send(fd, size) === size;
  }
}

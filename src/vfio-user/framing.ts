/**
 * Splits a byte stream into messages with their descriptors. One receive call takes many messages;
 * a message without descriptors costs no allocation.
 */
import { type ClaimedFds, hexOf, readRecord, type SavedFds } from "../memory/record.ts";
import { EMFILE, EMSGSIZE, type OsError } from "../os/errors.ts";
import { type Mapping, mapAnonymous } from "../os/memory.ts";
import { SocketReceiver } from "../os/messages.ts";
import { closePeer } from "../os/peer-close.ts";
import type { MessageJournal } from "./journal.ts";
import { HEADER, MAX_MESSAGE } from "./protocol.ts";

/** Bytes per receive: bounds the work of one turn to some hundred small messages. */
const RECEIVE_BYTES = 16384;
/** Descriptors of one message. */
const MAX_FDS = 16;
/**
 * Descriptors of one receive: the kernel's maximum. With less room it would close the rest in this
 * thread, and close can block.
 */
const KERNEL_MAX_FDS = 253;

export const NO_FDS: readonly number[] = [];

export class FramingError extends Error {
  override readonly name = "FramingError";
}

/** State of a stream between two receives. */
export interface StreamRecord {
  readonly version: 1;
  /** Hexadecimal; less than one message. */
  readonly bytes: string;
  /** Offset of the byte that carried the descriptors. */
  readonly fdsAt: number;
  readonly fds: readonly { readonly fd: number }[];
}

export class MessageStream {
  readonly #memory: Mapping = mapAnonymous(MAX_MESSAGE + RECEIVE_BYTES);
  readonly bytes = new Uint8Array(this.#memory.view(0, this.#memory.length));
  readonly data = new DataView(this.bytes.buffer);
  readonly #receiver = new SocketReceiver(KERNEL_MAX_FDS);
  /** Unread bytes are `[#start, #end)`. */
  #start = 0;
  #end = 0;
  /** Descriptors not handed out yet belong to the message that holds byte `#fdsAt`. */
  #fds: number[] = [];
  #fdsAt = -1;
  /** The current message, after `next`: where it begins, and its length with the header. */
  at = 0;
  size = 0;
  /** The last receive took all that had arrived. */
  emptied = true;
  readonly #journal: MessageJournal | null;
  /** With a journal: bytes of the last receive, still in the socket; and where it began. */
  #peeked = 0;
  #peekedAt = 0;
  /** Of these, bytes at the front that a process which crashed has executed. */
  #passed = 0;

  constructor(journal: MessageJournal | null = null) {
    this.#journal = journal;
  }

  /** Receives once. @returns bytes; 0 at the end of the stream, -1 if nothing has arrived */
  receive(fd: number): number {
    if (this.#start > 0) this.#compact();
    const at = this.#memory.address + this.#end;
    const n =
      this.#journal === null
        ? this.#receiver.receiveAt(fd, at, RECEIVE_BYTES)
        : this.#peek(this.#journal, fd, at);
    // The kernel ends a receive after bytes that carry descriptors.
    this.emptied = n < RECEIVE_BYTES && this.#receiver.fds.length === 0;
    if (n <= 0) return n;
    this.#end += n - this.#passed;
    if (this.#receiver.fds.length > 0) this.#keepFds(n);
    return n;
  }

  #peek(journal: MessageJournal, fd: number, at: number): number {
    journal.begin();
    const n = this.#receiver.peekAt(fd, at, RECEIVE_BYTES);
    this.#peeked = Math.max(n, 0);
    this.#peekedAt = this.#end;
    this.#passed = Math.min(journal.unconsumed, this.#peeked);
    // They cannot be taken alone: descriptors behind them would go, too.
    if (this.#passed > 0) {
      this.bytes.copyWithin(this.#end, this.#end + this.#passed, this.#end + n);
    }
    return n;
  }

  /** Of the current message: its end in what the last receive brought. */
  get endInReceived(): number {
    return this.#start - this.#peekedAt + this.#passed;
  }

  /** The current message began in an earlier receive. */
  get isContinued(): boolean {
    return this.at < this.#peekedAt;
  }

  /** With a journal, after the complete messages have been handled: takes them from the socket. */
  settle(fd: number): void {
    const journal = this.#journal;
    const peeked = this.#peeked;
    if (journal === null || peeked === 0) return;
    this.#peeked = 0;
    const left = this.#end - this.#start;
    // What is cut only because no more was asked for is peeked at again.
    if (peeked === RECEIVE_BYTES && left < peeked && this.#fds.length === 0) {
      this.#end = this.#start;
      return journal.consume(fd, peeked - left);
    }
    if (left > 0) journal.handled(peeked, 0, true);
    journal.consume(fd, peeked);
  }

  /** Moves the incomplete message to the front: the rest of it always fits behind. */
  #compact(): void {
    if (this.#end > this.#start) this.bytes.copyWithin(0, this.#start, this.#end);
    this.#end -= this.#start;
    this.#fdsAt -= this.#start;
    this.#start = 0;
  }

  /** The kernel ends a receive after bytes that carry descriptors: they belong to the last byte. */
  #keepFds(n: number): void {
    if (n === this.#passed) {
      for (const fd of this.#receiver.fds) closePeer(fd);
      return;
    }
    this.#fds.push(...this.#receiver.fds);
    this.#fdsAt = this.#end - 1;
    if (this.#fds.length > MAX_FDS) throw new FramingError("too many descriptors in one message");
  }

  /**
   * Steps to the next complete message, `[at, +size)` of `data`.
   * @throws FramingError if the size is invalid: the stream cannot be split any further
   */
  next(): boolean {
    const left = this.#end - this.#start;
    if (left < HEADER.SIZE) return false;
    const size = this.data.getUint32(this.#start + HEADER.size, true);
    if (size < HEADER.SIZE || size > MAX_MESSAGE) {
      throw new FramingError(`a message of ${size} bytes (${HEADER.SIZE} to ${MAX_MESSAGE})`);
    }
    if (left < size) return false;
    this.at = this.#start;
    this.size = size;
    this.#start += size;
    return true;
  }

  /** Takes the descriptors of the current message: the caller owns them. */
  takeFds(): readonly number[] {
    if (this.#fds.length === 0 || this.#fdsAt >= this.at + this.size) return NO_FDS;
    const fds = this.#fds;
    this.#fds = [];
    return fds;
  }

  /** Returns the state: the bytes of an incomplete message, and its descriptors. */
  save(fds: SavedFds): StreamRecord {
    // What is still in the socket is found there.
    if (this.#peeked > 0) return { version: 1, bytes: "", fdsAt: 0, fds: [] };
    return {
      version: 1,
      bytes: hexOf(this.bytes.subarray(this.#start, this.#end)),
      fdsAt: this.#fds.length === 0 ? 0 : this.#fdsAt - this.#start,
      fds: this.#fds.map((fd) => ({ fd: fds.add(fd) })),
    };
  }

  /**
   * Checks a record, for a stream that is empty.
   * @returns the function that restores it, which does not fail; the descriptors are the stream's
   * then
   * @throws RecordError
   */
  prepare(name: string, value: unknown, claimed: ClaimedFds): () => void {
    const { bytes, fdsAt, fds } = readRecord(name, value, 1, (record) => {
      const bytes = record.bytes("bytes", MAX_MESSAGE);
      const fdsAt = record.whole("fdsAt", 0, Math.max(0, bytes.length - 1));
      const most = bytes.length === 0 ? 0 : MAX_FDS;
      const fds = record.list("fds", most, (item) => claimed.claim(item, "fd"));
      if (fds.length === 0 && fdsAt !== 0) record.refuse("fdsAt", "there are no descriptors");
      if (fds.includes(-1)) record.refuse("fds", "a descriptor is missing");
      return { bytes, fdsAt, fds };
    });
    return () => {
      this.clear();
      this.bytes.set(bytes);
      this.#end = bytes.length;
      this.#fds = fds;
      this.#fdsAt = fdsAt;
    };
  }

  /** Discards everything, for the next connection. */
  clear(): void {
    for (const fd of this.#fds) closePeer(fd);
    this.#fds = [];
    this.#start = 0;
    this.#end = 0;
    this.#peeked = 0;
  }

  /** Reads and discards until the stream ends, so that closing does not reset the connection. */
  drain(fd: number): void {
    let more = true;
    while (more) {
      this.clear();
      more = this.#discard(fd);
    }
    this.clear();
  }

  #discard(fd: number): boolean {
    try {
      const n = this.#receiver.receiveAt(fd, this.#memory.address, RECEIVE_BYTES);
      this.#fds.push(...this.#receiver.fds);
      return n > 0;
    } catch (error) {
      // Too many descriptors (closed by now) do not end the stream; a lost connection does.
      const { errno } = error as OsError;
      return error instanceof FramingError || errno === EMSGSIZE || errno === EMFILE;
    }
  }

  close(): void {
    this.clear();
    this.#receiver.close();
    this.#memory.unmap();
  }
}

/**
 * The state of a NIC, or of a server, in a memory file that a keeper holds, too: what is in it
 * survives the process. A state is written beside the latest one, and becomes the latest by one
 * store, so whoever reads after a crash finds a whole one. The only writer is the process that
 * serves; it is read when that has ended.
 */
import { PROGRESS } from "../net/progress.ts";
import { createMemfd, type Mapping, mapFile, PAGE, shrinkSeal } from "../os/memory.ts";
import { JOURNAL_BYTES } from "../vfio-user/journal.ts";

/** Words of the second page. */
const WORD = { magic: 0, latest: 1, length: 2, executed: 4 } as const;
const MAGIC = 0x6b766862;
/** Of the NIC's ports, in the same page. */
const PROGRESS_AT = PAGE + 512;
const MAX_PAIRS = (PAGE - 512) / 4 / PROGRESS.WORDS;
/** A NIC with as many memory ranges as a VMM may have takes 10 MiB. Pages not used take none. */
const SLOT = 16 << 20;
const BYTES = JOURNAL_BYTES + 2 * SLOT;

export interface KeptState {
  readonly state: unknown;
  /** Bytes of the client's messages that are in it: see `MessageJournal`. */
  readonly executed: number;
}

export class KeptRecord {
  readonly fd: number;
  /** The journal is at its beginning. */
  readonly memory: Mapping;
  readonly #words: Int32Array;
  readonly #slots: readonly Uint8Array[];

  /** @param fd of such a file; this record's from here on */
  private constructor(fd: number) {
    this.fd = fd;
    this.memory = mapFile(fd, 0, BYTES, { write: true });
    this.#words = new Int32Array(this.memory.view(PAGE, 64));
    this.#slots = [0, 1].map(
      (n) => new Uint8Array(this.memory.view(JOURNAL_BYTES + n * SLOT, SLOT)),
    );
  }

  /** Makes one without a state. @throws OsError */
  static create(name: string): KeptRecord {
    const record = new KeptRecord(createMemfd(name, BYTES, { seal: true }));
    Atomics.store(record.#words, WORD.magic, MAGIC);
    return record;
  }

  /** @throws Error if the file is another one; then `fd` stays the caller's */
  static open(fd: number): KeptRecord {
    if (shrinkSeal(fd) === "unsealable") throw new Error("it is not a sealed memory file");
    const record = new KeptRecord(fd);
    if (Atomics.load(record.#words, WORD.magic) === MAGIC) return record;
    record.memory.unmap();
    throw new Error("it is not a record of this release");
  }

  /** See `PROGRESS` of the ports. */
  progressOf(pair: number): Int32Array {
    const at = Math.min(pair, MAX_PAIRS - 1) * PROGRESS.WORDS * 4;
    return new Int32Array(this.memory.view(PROGRESS_AT + at, PROGRESS.WORDS * 4));
  }

  /** @returns false if the state is too large: the one before stays the latest */
  write(state: unknown, executed = 0): boolean {
    const text = JSON.stringify(state);
    const next = Atomics.load(this.#words, WORD.latest) === 1 ? 1 : 0;
    const { read, written } = new TextEncoder().encodeInto(text, this.#slots[next]);
    if (read < text.length) return false;
    this.#words[WORD.length + next] = written;
    this.#words[WORD.executed + next] = executed | 0;
    Atomics.store(this.#words, WORD.latest, next + 1);
    return true;
  }

  /** The NIC is another process's, or cannot be saved any more. */
  clear(): void {
    Atomics.store(this.#words, WORD.latest, 0);
  }

  /** @returns the latest state; null: there is none. @throws SyntaxError */
  read(): KeptState | null {
    const slot = Atomics.load(this.#words, WORD.latest) - 1;
    const bytes = this.#slots[slot];
    if (bytes === undefined) return null;
    const length = Math.min(this.#words[WORD.length + slot] >>> 0, SLOT);
    const text = Buffer.from(bytes.subarray(0, length)).toString();
    return { state: JSON.parse(text), executed: this.#words[WORD.executed + slot] >>> 0 };
  }

  /** Of another thread's mapping: `fd` stays open. */
  unmap(): void {
    this.memory.unmap();
  }
}

/**
 * Writes to a descriptor that other processes share (standard output and error). It neither blocks
 * this thread nor sets O_NONBLOCK, which would apply to every process with the same open file.
 */
import { fstatSync } from "node:fs";
import { EAGAIN, EINTR, OsError } from "./errors.ts";
import { pollWritable } from "./fd.ts";
import * as libc from "./libc.ts";

const O_WRONLY_NONBLOCK_NOCTTY_CLOEXEC = 1 | 0o4000 | 0o400 | 0o2000000;
const MSG_DONTWAIT_NOSIGNAL = 0x40 | 0x4000;
/** A writable pipe takes this many bytes at once (PIPE_BUF). */
const PIECE = 4096;

type Write = (address: number, length: number) => number;

export class Output {
  /** Typed arrays of this size are allocated outside the heap and do not move. */
  readonly #piece = new Uint8Array(PIECE);
  readonly #address = libc.addressOf(this.#piece);
  readonly #write: Write;
  readonly #own: number = -1;

  constructor(fd: number) {
    const stat = fstatSync(fd);
    if (stat.isSocket()) {
      this.#write = (at, length) => libc.send(fd, at, length, MSG_DONTWAIT_NOSIGNAL);
      return;
    }
    if (stat.isFIFO() || stat.isCharacterDevice()) this.#own = reopened(fd);
    const to = this.#own < 0 ? fd : this.#own;
    // A pipe of another user cannot be opened again. Regular files
    // never block, and keep their offset in `fd`.
    const asks = this.#own < 0 && !stat.isFile();
    this.#write = (at, length) =>
      asks && pollWritable(fd, 0) <= 0 ? 0 : libc.write(to, at, length);
  }

  /**
   * Writes what the descriptor takes at once of `bytes` from `from` on. @returns bytes written, 0
   * if the reader is slow
   * @throws OsError if there is no reader or no space left (EPIPE, ENOSPC, EIO)
   */
  write(bytes: Uint8Array, from = 0): number {
    const length = Math.min(PIECE, bytes.length - from);
    this.#piece.set(bytes.subarray(from, from + length));
    const written = this.#write(this.#address, length);
    if (written >= 0) return written;
    const number = libc.errno();
    if (number === EAGAIN || number === EINTR) return 0;
    throw new OsError("write", "log", number);
  }

  close(): void {
    if (this.#own >= 0) libc.close(this.#own);
  }
}

function reopened(fd: number): number {
  return libc.open(`/proc/self/fd/${fd}`, O_WRONLY_NONBLOCK_NOCTTY_CLOEXEC, 0);
}

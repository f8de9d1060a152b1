/** Descriptors that a hostile peer may attach to a message. */

import { spawnSync } from "node:child_process";
import {
  closeSync,
  constants,
  mkdtempSync,
  openSync,
  rmSync,
  truncateSync,
  writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createEventFd } from "../../../src/os/eventfd.ts";
import { close } from "../../../src/os/fd.ts";
import * as libc from "../../../src/os/libc.ts";
import { createMemfd } from "../../../src/os/memory.ts";
import { socketPair } from "../../../src/os/unix-socket.ts";
import { dup } from "../../support/os.ts";

export const FD_KINDS = [
  "eventfd",
  "memfd",
  "unsealed memfd",
  "small memfd",
  "full blocking eventfd",
  "blocking pipe",
  "socket",
  "null device",
  "directory",
  "file",
  "read-only file",
] as const;
export type FdKind = (typeof FD_KINDS)[number];

const BLOCKING: readonly FdKind[] = ["full blocking eventfd", "blocking pipe"];

export const GUEST_BYTES = 1 << 20;
const F_SETFL = 4;
/** The largest value of an eventfd's counter. */
const FULL = 0xfffffffffffffffen;

export class StrangeFds {
  readonly #folder = mkdtempSync(join(tmpdir(), "bpfhv-fuzz-"));
  readonly #fds: Record<FdKind, number>;
  readonly #others: number[] = [];

  constructor() {
    const [ours, theirs] = socketPair();
    this.#others.push(theirs);
    const path = join(this.#folder, "file");
    this.#fds = {
      eventfd: createEventFd(),
      memfd: createMemfd("fuzz", GUEST_BYTES, { seal: true }),
      "unsealed memfd": createMemfd("fuzz", GUEST_BYTES),
      "small memfd": createMemfd("fuzz", 4096, { seal: true }),
      "full blocking eventfd": fullEventFd(),
      "blocking pipe": this.#fifo(),
      socket: ours,
      "null device": openSync("/dev/null", "r+"),
      directory: openSync("/", constants.O_DIRECTORY),
      file: openSync(path, "w+"),
      "read-only file": openSync(path, "r"),
    };
    truncateSync(path, GUEST_BYTES);
  }

  get(kind: FdKind): number {
    return this.#fds[kind];
  }

  /**
   * Makes blocking descriptors block again: the code under test may have changed that, and a peer
   * can change it back.
   */
  block(): void {
    for (const kind of BLOCKING) libc.fcntl(this.#fds[kind], F_SETFL, constants.O_RDWR);
  }

  #fifo(): number {
    const path = join(this.#folder, "fifo");
    spawnSync("mkfifo", [path]);
    // Opens both ends, so that opening does not wait. Then sets blocking and fills it.
    const fd = openSync(path, constants.O_RDWR | constants.O_NONBLOCK);
    const page = Buffer.alloc(4096);
    try {
      for (;;) writeSync(fd, page);
    } catch {
      libc.fcntl(fd, F_SETFL, constants.O_RDWR);
    }
    return fd;
  }

  close(): void {
    for (const fd of [...Object.values(this.#fds), ...this.#others]) close(fd);
    rmSync(this.#folder, { recursive: true, force: true });
  }
}

function fullEventFd(): number {
  const fd = createEventFd();
  const count = Buffer.alloc(8);
  count.writeBigUInt64LE(FULL);
  const copy = dup(fd);
  writeSync(copy, count);
  closeSync(copy);
  libc.fcntl(fd, F_SETFL, constants.O_RDWR);
  return fd;
}

/**
 * Closing a descriptor that came from a peer. close(2) can take as long as the peer
 * likes: the last reference of a TCP socket with SO_LINGER waits for an acknowledgement,
 * a file of FUSE for its server's answer. So all but the kinds that cannot are closed by
 * a thread of their own, which runs nothing but close(2).
 */
import { statSync } from "node:fs";
import { fdTarget } from "./fd.ts";
import * as libc from "./libc.ts";

const F_GET_SEALS = 1034;
const QUICK = new Set(["anon_inode:[eventfd]", "anon_inode:[timerfd]", "anon_inode:[eventpoll]"]);
/** Threads of this process, those of Node.js among them: with more, a descriptor stays open. */
const MAX_THREADS = 64;

/**
 * A folder of so many folders, and two links more. Needs no
 * descriptor, of which there may be none left.
 */
function threads(): number {
  return statSync("/proc/self/task").nlink - 2;
}

let closeFunction = 0;

/** Does closing it return at once, whatever the peer does? Asks nothing of the file itself. */
function isQuick(fd: number): boolean {
  const target = fdTarget(fd);
  // Only memory files know seals: memfd, tmpfs, hugetlbfs.
  return QUICK.has(target) || target.startsWith("pipe:") || libc.fcntl(fd, F_GET_SEALS, 0) >= 0;
}

const F_GETFD = 1;
const NEVER = new Int32Array(new SharedArrayBuffer(4));

/**
 * The number is free as soon as the other thread runs; what takes
 * its time comes after that. At most 10 ms.
 */
function waitUntilFree(fd: number): void {
  for (let n = 0; n < 50 && libc.fcntl(fd, F_GETFD, 0) >= 0; n++) Atomics.wait(NEVER, 0, 0, 0.2);
}

/**
 * @returns false when it stays open, because too many before it
 * still close, or no thread can be had
 */
export function closePeer(fd: number): boolean {
  if (isQuick(fd)) return libc.close(fd) === 0;
  if (threads() >= MAX_THREADS) return false;
  if (closeFunction === 0) closeFunction = libc.dlsym(0, "close");
  const { scratch, STRUCT_OFFSET, STRUCT_ADDRESS } = libc;
  if (libc.pthreadCreate(STRUCT_ADDRESS, 0, closeFunction, fd) !== 0) return false;
  const low = scratch.getUint32(STRUCT_OFFSET, true);
  libc.pthreadDetach(low + scratch.getUint32(STRUCT_OFFSET + 4, true) * 2 ** 32);
  waitUntilFree(fd);
  return true;
}

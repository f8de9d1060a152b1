/**
 * Closes descriptors that came from a peer. The peer decides how long close(2) takes: the last
 * reference of a TCP socket with SO_LINGER waits for an acknowledgement, a file of FUSE for its
 * server's reply. So a separate thread, which runs nothing but close(2), closes all but the kinds
 * that return at once.
 */
import { statSync } from "node:fs";
import { fdTarget } from "./fd.ts";
import { forgetFd, recordFd } from "./ledger.ts";
import * as libc from "./libc.ts";

const F_GET_SEALS = 1034;
const QUICK = new Set(["anon_inode:[eventfd]", "anon_inode:[timerfd]", "anon_inode:[eventpoll]"]);
/**
 * Limit of threads of this process, those of Node.js included. Above it, a descriptor stays open.
 */
const MAX_THREADS = 64;

/**
 * Returns the number of threads: the folder's link count minus two.
 * Needs no descriptor, which may be used up.
 */
function threads(): number {
  return statSync("/proc/self/task").nlink - 2;
}

let closeFunction = 0;

/** Returns true if its close returns at once, whatever the peer does. Does not access the file. */
function isQuick(fd: number): boolean {
  const target = fdTarget(fd);
  // Only memory files have seals: memfd, tmpfs, hugetlbfs.
  return QUICK.has(target) || target.startsWith("pipe:") || libc.fcntl(fd, F_GET_SEALS, 0) >= 0;
}

const F_GETFD = 1;
const NEVER = new Int32Array(new SharedArrayBuffer(4));

/**
 * Waits at most 10 ms for the number to be free, which it is as soon as the other thread runs. The
 * slow part of close(2) comes after that.
 */
function waitUntilFree(fd: number): void {
  for (let n = 0; n < 50 && libc.fcntl(fd, F_GETFD, 0) >= 0; n++) Atomics.wait(NEVER, 0, 0, 0.2);
}

/**
 * Closes a peer's descriptor. @returns false if it stays open, because too many closes are in
 * progress or no thread can be created
 */
export function closePeer(fd: number): boolean {
  if (isQuick(fd)) return libc.close(fd) === 0;
  if (threads() >= MAX_THREADS) return false;
  if (closeFunction === 0) closeFunction = libc.dlsym(0, "close");
  const { scratch, STRUCT_OFFSET, STRUCT_ADDRESS } = libc;
  forgetFd(fd);
  if (libc.pthreadCreate(STRUCT_ADDRESS, 0, closeFunction, fd) !== 0) {
    recordFd(fd);
    return false;
  }
  const low = scratch.getUint32(STRUCT_OFFSET, true);
  libc.pthreadDetach(low + scratch.getUint32(STRUCT_OFFSET + 4, true) * 2 ** 32);
  waitUntilFree(fd);
  return true;
}

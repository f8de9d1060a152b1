/**
 * Event descriptors: counters of the kernel, for kicks and interrupts. A peer shares the
 * open file of each descriptor that it sends and controls its flags, so no call on a
 * peer's descriptor relies on O_NONBLOCK.
 */
import { AioSignaller } from "./aio.ts";
import { check, EAGAIN } from "./errors.ts";
import { fdTarget, pollWritable, trySetNonBlocking } from "./fd.ts";
import * as libc from "./libc.ts";

const EFD_NONBLOCK = 0o4000;
const EFD_CLOEXEC = 0o2000000;
const SYS_PREADV2 = process.arch === "x64" ? 327 : 286;
const RWF_NOWAIT = 8;

export function createEventFd(): number {
  return check(
    libc.eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC),
    "eventfd",
    "",
    "raise the limit of open files (ulimit -n)",
  );
}

/**
 * Returns true if `fd` is an event descriptor. Reads /proc instead of the file: one of FUSE or a
 * driver could block the caller.
 */
export function isEventFd(fd: number): boolean {
  return fdTarget(fd) === "anon_inode:[eventfd]";
}

/**
 * Adds one to a descriptor of this process. A full counter counts as success: its reader is awake.
 */
export function signalEventFd(fd: number): void {
  libc.write(fd, libc.ONE_ADDRESS, 8);
}

/** This thread's signaller; null if the system refused a context. */
let signaller: AioSignaller | null | undefined;

/** Opens the signaller before a peer connects, whose descriptors may use up the limit. */
export function prepareToSignalPeers(): void {
  signaller ??= AioSignaller.open();
}

/**
 * Adds one to a peer's event descriptor. Never blocks, whatever the peer does to the open file
 * meanwhile. `fd` has passed `isEventFd`. @returns false if it could not be signalled
 */
export function signalPeer(fd: number): boolean {
  if (signaller === undefined) prepareToSignalPeers();
  return signaller === null || signaller === undefined ? signalWritable(fd) : signaller.signal(fd);
}

/**
 * Signals without an asynchronous request, if the counter is not full. A peer that
 * fills it and clears O_NONBLOCK between the two calls still blocks the thread;
 * the main thread's watchdog detects that.
 */
export function signalWritable(fd: number): boolean {
  trySetNonBlocking(fd);
  if (pollWritable(fd, 0) !== 1) return true;
  return libc.write(fd, libc.ONE_ADDRESS, 8) === 8 || libc.errno() === EAGAIN;
}

/**
 * Reads the count and resets it to 0; returns the number of signals (0 to 2^32-1, capped).
 * RWF_NOWAIT, because another reader may have emptied it, and a peer may have cleared O_NONBLOCK.
 */
export function drainEventFd(fd: number): number {
  const n = libc.syscall6(SYS_PREADV2, fd, libc.RESULT_IOVEC_ADDRESS, 1, -1, 0, RWF_NOWAIT);
  if (n !== 8 && !(n < 0 && libc.errno() !== EAGAIN && readOld(fd))) return 0;
  const high = libc.scratch.getUint32(libc.RESULT_OFFSET + 4, true);
  return high === 0 ? libc.scratch.getUint32(libc.RESULT_OFFSET, true) : 0xffffffff;
}

/** For kernels before 5.9 and sandboxes, which refuse RWF_NOWAIT for event descriptors. */
function readOld(fd: number): boolean {
  trySetNonBlocking(fd);
  return libc.read(fd, libc.scratchAddress + libc.RESULT_OFFSET, 8) === 8;
}

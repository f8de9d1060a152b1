/**
 * Event descriptors: a counter that the kernel keeps, for kicks and interrupts.
 * Peers share the open file of theirs and choose its flags, so nothing here that
 * touches a peer's descriptor relies on O_NONBLOCK.
 */
import { AioSignaller } from "./aio.ts";
import { check, EAGAIN } from "./errors.ts";
import { fdTarget, trySetNonBlocking } from "./fd.ts";
import * as libc from "./libc.ts";

const EFD_NONBLOCK = 0o4000;
const EFD_CLOEXEC = 0o2000000;
const SYS_PREADV2 = process.arch === "x64" ? 327 : 286;
const RWF_NOWAIT = 8;
const POLLOUT = 4;

export function createEventFd(): number {
  return check(
    libc.eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC),
    "eventfd",
    "",
    "raise the limit of open files (ulimit -n)",
  );
}

/**
 * Is it an event descriptor? Asks /proc, never the file: one of FUSE
 * or a driver could keep the caller waiting.
 */
export function isEventFd(fd: number): boolean {
  return fdTarget(fd) === "anon_inode:[eventfd]";
}

/**
 * Adds one to a descriptor of this process. A full counter is as
 * good as added: the reader is awake anyway.
 */
export function signalEventFd(fd: number): void {
  libc.write(fd, libc.ONE_ADDRESS, 8);
}

/** This thread's; null: the system gives none. */
let signaller: AioSignaller | null | undefined;

/** Before a peer comes, who might leave no descriptor for it. */
export function prepareToSignalPeers(): void {
  signaller ??= AioSignaller.open();
}

/**
 * Adds one to a peer's event descriptor, and never blocks, whatever the peer does to the open file
 * meanwhile. `fd` has passed `isEventFd`. @returns false when it could not be signalled
 */
export function signalPeer(fd: number): boolean {
  if (signaller === undefined) prepareToSignalPeers();
  return signaller === null || signaller === undefined ? signalWritable(fd) : signaller.signal(fd);
}

/**
 * Without a context for asynchronous requests: not when the counter is full. A peer that fills it
 * and clears O_NONBLOCK between these calls still blocks the thread; the watchdog of the main
 * thread is left for that.
 */
export function signalWritable(fd: number): boolean {
  trySetNonBlocking(fd);
  libc.scratch.setInt32(libc.STRUCT_OFFSET, fd, true);
  libc.scratch.setInt32(libc.STRUCT_OFFSET + 4, POLLOUT, true);
  if (libc.poll(libc.STRUCT_ADDRESS, 1, 0) !== 1) return true;
  return libc.write(fd, libc.ONE_ADDRESS, 8) === 8 || libc.errno() === EAGAIN;
}

/**
 * Takes the count and leaves 0; returns how often it was signalled (0 to 2^32-1, capped).
 * RWF_NOWAIT: another reader may have taken it, and a peer may have cleared O_NONBLOCK.
 */
export function drainEventFd(fd: number): number {
  const n = libc.syscall6(SYS_PREADV2, fd, libc.RESULT_IOVEC_ADDRESS, 1, -1, 0, RWF_NOWAIT);
  if (n !== 8 && !(n < 0 && libc.errno() !== EAGAIN && readOld(fd))) return 0;
  const high = libc.scratch.getUint32(libc.RESULT_OFFSET + 4, true);
  return high === 0 ? libc.scratch.getUint32(libc.RESULT_OFFSET, true) : 0xffffffff;
}

/** Kernels before 5.9 and sandboxes know no RWF_NOWAIT for event descriptors. */
function readOld(fd: number): boolean {
  trySetNonBlocking(fd);
  return libc.read(fd, libc.scratchAddress + libc.RESULT_OFFSET, 8) === 8;
}

/** Event descriptors: a counter that the kernel keeps, for kicks and interrupts. */
import { check } from "./errors.ts";
import * as libc from "./libc.ts";

const EFD_NONBLOCK = 0o4000;
const EFD_CLOEXEC = 0o2000000;

export function createEventFd(): number {
  return check(
    libc.eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC),
    "eventfd",
    "",
    "raise the limit of open files (ulimit -n)",
  );
}

/** Adds one. A full counter (EAGAIN) is as good as added: the reader is awake anyway. */
export function signalEventFd(fd: number): void {
  libc.write(fd, libc.ONE_ADDRESS, 8);
}

/** Takes the count and leaves 0; returns how often it was signalled (0 to 2^32-1, capped). */
export function drainEventFd(fd: number): number {
  if (libc.read(fd, libc.scratchAddress + libc.RESULT_OFFSET, 8) !== 8) return 0;
  const high = libc.scratch.getUint32(libc.RESULT_OFFSET + 4, true);
  return high === 0 ? libc.scratch.getUint32(libc.RESULT_OFFSET, true) : 0xffffffff;
}

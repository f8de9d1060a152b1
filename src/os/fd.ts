/** File descriptors. Every one created in this folder is close-on-exec. */
import { fstatSync, readlinkSync } from "node:fs";
import { check } from "./errors.ts";
import * as libc from "./libc.ts";

const F_DUPFD_CLOEXEC = 1030;
const F_GETFL = 3;
const F_SETFL = 4;
const O_NONBLOCK = 0o4000;

/** Closes `fd`. A descriptor that is not open is an error of the caller and is ignored. */
export function close(fd: number): void {
  libc.close(fd);
}

/** Returns a second descriptor of the same open file. */
export function duplicate(fd: number): number {
  const hint = "raise the limit of open files (ulimit -n)";
  return check(libc.fcntl(fd, F_DUPFD_CLOEXEC, 0), "fcntl(F_DUPFD_CLOEXEC)", `fd ${fd}`, hint);
}

export function setNonBlocking(fd: number): void {
  const flags = check(libc.fcntl(fd, F_GETFL, 0), "fcntl(F_GETFL)", `fd ${fd}`);
  check(libc.fcntl(fd, F_SETFL, flags | O_NONBLOCK), "fcntl(F_SETFL)", `fd ${fd}`);
}

/** Sets O_NONBLOCK if possible. A peer that shares the open file can clear it at any time. */
export function trySetNonBlocking(fd: number): void {
  const flags = libc.fcntl(fd, F_GETFL, 0);
  if (flags >= 0) libc.fcntl(fd, F_SETFL, flags | O_NONBLOCK);
}

const POLLOUT = 4;

/**
 * poll(2) for POLLOUT: struct pollfd is fd i32, events i16, revents i16. An error counts as
 * writable: the write reports it.
 * @returns 1 if writable, 0 on timeout, negative if poll failed
 */
export function pollWritable(fd: number, ms: number): number {
  libc.scratch.setInt32(libc.STRUCT_OFFSET, fd, true);
  libc.scratch.setInt32(libc.STRUCT_OFFSET + 4, POLLOUT, true);
  return libc.poll(libc.STRUCT_ADDRESS, 1, ms);
}

/** Waits until an unshared descriptor is writable. @returns false on timeout */
export function waitWritable(fd: number, ms: number): boolean {
  return fd >= 0 && ms > 0 && pollWritable(fd, Math.ceil(ms)) > 0;
}

export interface FileIdentity {
  readonly dev: number;
  readonly ino: number;
  /** Bytes; 0 if it is not a regular file (memfds are). */
  readonly size: number;
}

/** Identifies the file: two descriptors with equal `dev` and `ino` refer to the same file. */
export function fstat(fd: number): FileIdentity {
  const { dev, ino, size } = fstatSync(fd);
  return { dev, ino, size };
}

/**
 * Returns what the descriptor refers to, for messages: a path,
 * "socket:[123]", "/memfd:ram (deleted)".
 */
export function fdTarget(fd: number): string {
  try {
    return readlinkSync(`/proc/self/fd/${fd}`);
  } catch {
    return "closed";
  }
}

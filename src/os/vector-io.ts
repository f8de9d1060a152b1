/**
 * Scatter and gather I/O without allocation, for packet loops that own tables
 * of struct iovec (base u64, length u64).
 */
import * as libc from "./libc.ts";

/** Returns bytes read, or minus errno. `iovecs` is the address of `count` struct iovec. */
export function readv(fd: number, iovecs: number, count: number): number {
  const n = libc.readv(fd, iovecs, count);
  return n < 0 ? -libc.errno() : n;
}

/** Returns bytes written, or minus errno. */
export function writev(fd: number, iovecs: number, count: number): number {
  const n = libc.writev(fd, iovecs, count);
  return n < 0 ? -libc.errno() : n;
}

/** Reads into one buffer. Returns bytes read, or minus errno. */
export function read(fd: number, address: number, length: number): number {
  const n = libc.read(fd, address, length);
  return n < 0 ? -libc.errno() : n;
}

/** Writes one buffer. Returns bytes written, or minus errno. */
export function write(fd: number, address: number, length: number): number {
  const n = libc.write(fd, address, length);
  return n < 0 ? -libc.errno() : n;
}

/** Writes one buffer at `offset` of a file. Returns bytes written, or minus errno. */
export function pwrite(fd: number, address: number, length: number, offset: number): number {
  const n = libc.pwrite(fd, address, length, offset);
  return n < 0 ? -libc.errno() : n;
}

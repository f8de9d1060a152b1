/** The error type of every refused system call: call, object, reason, and what to do. */
import { constants } from "node:os";
import { getSystemErrorMap } from "node:util";
import { errno } from "./libc.ts";

const names = new Map<number, string>();
for (const [name, number] of Object.entries(constants.errno)) {
  // EWOULDBLOCK and EOPNOTSUPP share numbers with the usual
  // names, which come first or are set below.
  if (!names.has(number)) names.set(number, name);
}

/** Returns "ENOENT" for 2; "E<number>" for numbers that Node does not know. */
export function errnoName(number: number): string {
  return names.get(number) ?? `E${number}`;
}

function describe(number: number): string {
  return getSystemErrorMap().get(-number)?.[1] ?? `error ${number}`;
}

/**
 * A refused operation of the operating system. `code` is the errno name and is stable; the message
 * names the call, the object and what to do.
 */
export class OsError extends Error {
  override readonly name = "OsError";
  readonly code: string;
  readonly errno: number;
  readonly call: string;
  readonly object: string;
  readonly hint: string;

  constructor(call: string, object: string, number: number, hint = "", why = describe(number)) {
    super(`${call} ${object}: ${why} (${errnoName(number)})${hint === "" ? "" : `; ${hint}`}`);
    this.code = errnoName(number);
    this.errno = number;
    this.call = call;
    this.object = object;
    this.hint = hint;
  }
}

/** Returns `result`, or throws an OsError with errno if it is negative. */
export function check(result: number, call: string, object: string, hint = ""): number {
  if (result >= 0) return result;
  throw new OsError(call, object, errno(), hint);
}

const E = constants.errno;
export const EPERM = E.EPERM;
export const ENOENT = E.ENOENT;
export const EINTR = E.EINTR;
export const EIO = E.EIO;
export const EBADF = E.EBADF;
export const EAGAIN = E.EAGAIN;
export const ENOMEM = E.ENOMEM;
export const EACCES = E.EACCES;
export const EBUSY = E.EBUSY;
export const EEXIST = E.EEXIST;
export const ENODEV = E.ENODEV;
export const EINVAL = E.EINVAL;
export const EMFILE = E.EMFILE;
export const EFBIG = E.EFBIG;
export const ENAMETOOLONG = E.ENAMETOOLONG;
export const EMSGSIZE = E.EMSGSIZE;
export const EADDRINUSE = E.EADDRINUSE;
export const ECONNRESET = E.ECONNRESET;
export const ECONNREFUSED = E.ECONNREFUSED;
export const ENOTSUP = E.ENOTSUP;
export const ETIMEDOUT = E.ETIMEDOUT;
export const EPIPE = E.EPIPE;

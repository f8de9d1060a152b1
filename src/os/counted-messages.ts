/**
 * sendmmsg(2) and recvmmsg(2) with one message each, for the sake of `msg_len`: the kernel writes
 * there, inside of the call, how many bytes went. In memory that outlives the process this tells
 * whether a call was made that the process did not live to see return.
 */
import { EAGAIN, EINTR, OsError } from "./errors.ts";
import * as libc from "./libc.ts";

const SYS_SENDMMSG = process.arch === "x64" ? 307 : 269;
const SYS_RECVMMSG = process.arch === "x64" ? 299 : 243;
const MSG_DONTWAIT = 0x40;
const MSG_NOSIGNAL = 0x4000;

/** struct mmsghdr: msghdr (56 bytes), msg_len u32. The iovec is behind it, at 64. */
const AT = {
  iov: 16,
  iovLength: 24,
  control: 32,
  controlLength: 40,
  count: 56,
  iovec: 64,
} as const;

export class CountedMessage {
  static readonly BYTES = 128;
  readonly #data: DataView;
  readonly #address: number;

  /** @param data `BYTES` at `address`, zeroed or of a process that has ended */
  constructor(data: DataView, address: number) {
    this.#data = data;
    this.#address = address;
  }

  /** Bytes of the last call since `reset`; 0: it was not made, or moved nothing. */
  get count(): number {
    return this.#data.getUint32(AT.count, true);
  }

  /** Call it before the call is announced. */
  reset(): void {
    this.#data.setUint32(AT.count, 0, true);
  }

  /** @returns the bytes sent, or -1 if the socket is full. @throws OsError */
  send(fd: number, address: number, length: number): number {
    return this.#call(SYS_SENDMMSG, "sendmmsg", MSG_DONTWAIT | MSG_NOSIGNAL, fd, address, length);
  }

  /** Descriptors that come with the bytes are closed. @returns bytes; -1 if none are there */
  receive(fd: number, address: number, length: number): number {
    return this.#call(SYS_RECVMMSG, "recvmmsg", MSG_DONTWAIT, fd, address, length);
  }

  #call(
    number: number,
    name: string,
    flags: number,
    fd: number,
    address: number,
    length: number,
  ): number {
    const data = this.#data;
    const at = this.#address;
    libc.putAddress(data, AT.iov, at + AT.iovec);
    libc.putAddress(data, AT.iovLength, 1);
    libc.putAddress(data, AT.control, 0);
    libc.putAddress(data, AT.controlLength, 0);
    libc.putAddress(data, AT.iovec, address);
    libc.putAddress(data, AT.iovec + 8, length);
    if (libc.syscall6(number, fd, at, 1, flags, 0, 0) === 1) return this.count;
    const errno = libc.errno();
    if (errno === EAGAIN || errno === EINTR) return -1;
    throw new OsError(name, `fd ${fd}`, errno);
  }
}

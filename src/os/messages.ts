/**
 * Bytes with descriptors over a UNIX stream socket: struct
 * msghdr and SCM_RIGHTS, built in one mapping.
 */
import { EAGAIN, EINTR, EINVAL, EMFILE, EMSGSIZE, OsError } from "./errors.ts";
import { recordFd } from "./ledger.ts";
import * as libc from "./libc.ts";
import { type Mapping, mapAnonymous, PAGE } from "./memory.ts";
import { closePeer } from "./peer-close.ts";

const MSG_PEEK = 0x02;
const MSG_CTRUNC = 0x08;
const MSG_DONTWAIT = 0x40;
const MSG_NOSIGNAL = 0x4000;
const MSG_CMSG_CLOEXEC = 0x40000000;
const SOL_SOCKET = 1;
const SCM_RIGHTS = 1;

/** The 64-bit layouts: msghdr at 0 (56 bytes), iovec at 64 (16), control message header at 128. */
const MSG = { iov: 16, iovLength: 24, control: 32, controlLength: 40, flags: 48 } as const;
const IOV = 64;
const CONTROL = 128;
/** cmsghdr: length u64, level i32, type i32, then the descriptors. */
const CMSG_HEADER = 16;
/** The kernel carries at most 253 descriptors (SCM_MAX_FD) in one message. */
const MAX_FDS = 253;

interface Header {
  readonly memory: Mapping;
  readonly address: number;
  readonly data: DataView;
}

function newHeader(): Header {
  const memory = mapAnonymous(PAGE);
  const data = new DataView(memory.view(0, PAGE));
  const { address } = memory;
  libc.putAddress(data, MSG.iov, address + IOV);
  data.setUint32(MSG.iovLength, 1, true);
  libc.putAddress(data, MSG.control, address + CONTROL);
  return { memory, address, data };
}

/**
 * Receives from stream sockets, with the descriptors that
 * accompany the bytes. One per loop suffices.
 */
export class SocketReceiver {
  /**
   * Descriptors of the last receive, which the caller owns. The next receive empties the list
   * without closing them. They belong to the message that holds the last byte received.
   */
  readonly fds: number[] = [];
  readonly #header: Header;
  readonly #controlLength: number;
  readonly #maxFds: number;

  /** `maxFds`: a receive with more descriptors than this fails. */
  constructor(maxFds = 16) {
    this.#maxFds = Math.min(maxFds, MAX_FDS);
    this.#controlLength = CMSG_HEADER + 4 * this.#maxFds;
    this.#header = newHeader();
  }

  receive(fd: number, into: { readonly address: number; readonly length: number }): number {
    return this.receiveAt(fd, into.address, into.length);
  }

  /**
   * Receives bytes. @returns their number, 0 at the end of the stream, -1 if nothing is there
   * @throws OsError ECONNRESET and others if the connection is lost; EMSGSIZE if
   * there were more descriptors than `maxFds`; EMFILE if this process could not
   * take them; all of them are closed by then
   */
  receiveAt(fd: number, address: number, length: number): number {
    return this.#receive(fd, address, length, 0);
  }

  /** As `receiveAt`, and the bytes stay in the socket; the descriptors are duplicates. */
  peekAt(fd: number, address: number, length: number): number {
    return this.#receive(fd, address, length, MSG_PEEK);
  }

  #receive(fd: number, address: number, length: number, peek: number): number {
    const { data, address: header } = this.#header;
    if (this.fds.length > 0) this.fds.length = 0;
    libc.putAddress(data, IOV, address);
    data.setUint32(IOV + 8, length, true);
    data.setUint32(MSG.controlLength, this.#controlLength, true);
    const n = libc.recvmsg(fd, header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC | peek);
    if (n < 0) return this.#failed(fd);
    if (data.getUint32(MSG.controlLength, true) !== 0) this.#takeFds();
    if (data.getUint32(MSG.flags, true) & MSG_CTRUNC) this.#truncated(fd);
    return n;
  }

  #failed(fd: number): number {
    const number = libc.errno();
    if (number === EAGAIN || number === EINTR) return -1;
    throw new OsError("recvmsg", `fd ${fd}`, number);
  }

  #takeFds(): void {
    const { data } = this.#header;
    const end = CONTROL + data.getUint32(MSG.controlLength, true);
    for (let at = CONTROL; at + CMSG_HEADER <= end; ) {
      const length = data.getUint32(at, true);
      const rights =
        data.getInt32(at + 8, true) === SOL_SOCKET && data.getInt32(at + 12, true) === SCM_RIGHTS;
      if (rights) {
        const last = Math.min(at + length, end);
        for (let p = at + CMSG_HEADER; p + 4 <= last; p += 4) {
          this.fds.push(recordFd(data.getInt32(p, true)));
        }
      }
      at += Math.max((length + 7) & ~7, CMSG_HEADER);
    }
  }

  /**
   * The kernel leaves out descriptors that do not fit or that this process may not open any more.
   */
  #truncated(fd: number): never {
    const full = this.fds.length >= this.#maxFds;
    for (const received of this.fds) closePeer(received);
    this.fds.length = 0;
    if (full) {
      const why = "more descriptors came than are allowed; all were closed";
      throw new OsError("recvmsg", `fd ${fd}`, EMSGSIZE, "disconnect this peer", why);
    }
    const why = "descriptors that came with it were lost: too many files are open in this process";
    throw new OsError("recvmsg", `fd ${fd}`, EMFILE, "raise the limit (ulimit -n)", why);
  }

  close(): void {
    this.#header.memory.unmap();
  }
}

let sender: Header | undefined;

/**
 * Sends bytes from memory, optionally with descriptors, which
 * the caller keeps. Never raises SIGPIPE.
 * @returns the bytes sent, or -1 if the socket is full: then nothing was sent
 * @throws OsError EPIPE, ECONNRESET if the peer closed the connection
 */
export function sendMessage(
  fd: number,
  address: number,
  length: number,
  fds?: readonly number[],
): number {
  const n =
    fds === undefined || fds.length === 0
      ? libc.send(fd, address, length, MSG_NOSIGNAL | MSG_DONTWAIT)
      : sendWithFds(fd, address, length, fds);
  if (n >= 0) return n;
  const number = libc.errno();
  if (number === EAGAIN || number === EINTR) return -1;
  throw new OsError("sendmsg", `fd ${fd}`, number);
}

function sendWithFds(fd: number, address: number, length: number, fds: readonly number[]): number {
  if (fds.length > MAX_FDS) {
    throw new OsError("sendmsg", `fd ${fd}`, EINVAL, `pass at most ${MAX_FDS} descriptors`);
  }
  sender ??= newHeader();
  const { data } = sender;
  libc.putAddress(data, IOV, address);
  data.setUint32(IOV + 8, length, true);
  const controlLength = CMSG_HEADER + 4 * fds.length;
  data.setUint32(MSG.controlLength, controlLength, true);
  data.setUint32(CONTROL, controlLength, true);
  data.setInt32(CONTROL + 8, SOL_SOCKET, true);
  data.setInt32(CONTROL + 12, SCM_RIGHTS, true);
  for (const [i, passed] of fds.entries())
    data.setInt32(CONTROL + CMSG_HEADER + 4 * i, passed, true);
  return libc.sendmsg(fd, sender.address, MSG_NOSIGNAL | MSG_DONTWAIT);
}

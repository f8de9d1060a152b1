/** Datagrams of sd_notify(3), to a service manager or to `bpfhv keep`. */
import { check, EAGAIN, OsError } from "./errors.ts";
import { close, waitWritable } from "./fd.ts";
import * as libc from "./libc.ts";
import { type Mapping, mapAnonymous, PAGE } from "./memory.ts";
import { SocketReceiver, sendMessage } from "./messages.ts";
import { putUnixAddress } from "./unix-socket.ts";

const AF_UNIX = 1;
const SOCK_DGRAM_NONBLOCK_CLOEXEC = 2 | 0o4000 | 0o2000000;
/** The manager is busy with nothing else, and has a queue. */
const ROOM_MS = 2000;
const LONGEST = PAGE;

function newSocket(): number {
  const hint = "raise the limit of open files (ulimit -n)";
  return check(libc.socket(AF_UNIX, SOCK_DGRAM_NONBLOCK_CLOEXEC, 0), "socket", "AF_UNIX", hint);
}

export class Notifier {
  readonly #fd: number;
  readonly #memory: Mapping = mapAnonymous(LONGEST);
  readonly #bytes = new Uint8Array(this.#memory.view(0, LONGEST));

  /** @param path "@" before the name of an abstract socket. @throws OsError */
  constructor(path: string) {
    this.#fd = newSocket();
    const length = putUnixAddress("connect", path);
    if (libc.connect(this.#fd, libc.STRUCT_ADDRESS, length) === 0) return;
    const number = libc.errno();
    close(this.#fd);
    throw new OsError("connect", path, number, "NOTIFY_SOCKET names no service manager");
  }

  /** Sends assignments, one a line. @throws OsError if the manager has gone, or takes nothing */
  send(text: string, fds: readonly number[] = []): void {
    const { written } = new TextEncoder().encodeInto(text, this.#bytes);
    while (sendMessage(this.#fd, this.#memory.address, written, fds) < 0) {
      if (waitWritable(this.#fd, ROOM_MS)) continue;
      throw new OsError("sendmsg", "NOTIFY_SOCKET", EAGAIN, "", "the manager takes nothing");
    }
  }

  close(): void {
    close(this.#fd);
    this.#memory.unmap();
  }
}

export interface Notice {
  readonly text: string;
  /** The receiver's. */
  readonly fds: readonly number[];
}

/** The manager's end. */
export class NoticeReceiver {
  readonly fd: number;
  readonly #memory: Mapping = mapAnonymous(LONGEST);
  readonly #bytes = new Uint8Array(this.#memory.view(0, LONGEST));
  readonly #receiver = new SocketReceiver(253);

  /** Binds a socket at `path`, in a folder that nobody else can enter. @throws OsError */
  constructor(path: string) {
    this.fd = newSocket();
    const length = putUnixAddress("bind", path);
    if (libc.bind(this.fd, libc.STRUCT_ADDRESS, length) === 0) return;
    const number = libc.errno();
    close(this.fd);
    throw new OsError("bind", path, number);
  }

  /** @returns null if nothing has come @throws OsError if its descriptors were lost */
  receive(): Notice | null {
    const n = this.#receiver.receiveAt(this.fd, this.#memory.address, LONGEST);
    if (n < 0) return null;
    const text = Buffer.from(this.#bytes.subarray(0, n)).toString("latin1");
    return { text, fds: [...this.#receiver.fds] };
  }

  close(): void {
    close(this.fd);
    this.#receiver.close();
    this.#memory.unmap();
  }
}

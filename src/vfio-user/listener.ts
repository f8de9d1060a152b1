/** The listening socket of a server. It is watched while the server has no client. */
import { EPOLLIN, type Epoll } from "../os/epoll.ts";
import { close } from "../os/fd.ts";
import {
  accept,
  listenUnix,
  removeSocket,
  type SocketAccess,
  socketInode,
} from "../os/unix-socket.ts";
import type { Counters } from "./counters.ts";

/** Pause after accept(2) failed. */
const PAUSE_MS = 500;

export class Listener {
  /** -1 if there is none. */
  fd = -1;
  /** When a pause ends, in the time of `performance.now()`; infinity: there is none. */
  pausedUntil = Number.POSITIVE_INFINITY;
  #path: string | undefined;
  #inode = 0;
  readonly #counters: Counters;
  readonly #warn: (code: string, message: string) => void;
  #epoll: Epoll | null = null;
  #tag = 0;
  #watched = false;
  #warned = false;

  /**
   * @param path undefined: no clients are accepted
   * @throws OsError if the socket cannot be made
   */
  constructor(
    path: string | undefined,
    access: SocketAccess | undefined,
    counters: Counters,
    warn: (code: string, message: string) => void,
  ) {
    this.#path = path;
    this.#counters = counters;
    this.#warn = warn;
    if (path === undefined) return;
    this.fd = listenUnix(path, access);
    this.#inode = socketInode(path);
  }

  /** Goes on with the listening socket of another process; `fd` is this listener's from here on. */
  adopt(path: string, fd: number): void {
    if (this.fd >= 0) throw new Error("the listener has a socket");
    this.fd = fd;
    this.#path = path;
    this.#inode = socketInode(path);
  }

  /** Closes the socket, which another process has: its file stays. */
  leave(): void {
    if (this.fd >= 0) close(this.fd);
    this.fd = -1;
    this.#watched = false;
  }

  /** Sets the epoll set that `watch` adds the socket to. */
  register(epoll: Epoll, tag: number): void {
    this.#epoll = epoll;
    this.#tag = tag;
  }

  /** @returns the socket of a client; -1 if none waits. @throws OsError as accept(2) */
  accept(): number {
    if (this.fd < 0 || this.pausedUntil !== Number.POSITIVE_INFINITY) return -1;
    return accept(this.fd);
  }

  /** Ends a pause, and watches the socket. */
  watch(): void {
    this.pausedUntil = Number.POSITIVE_INFINITY;
    if (this.#watched || this.fd < 0 || this.#epoll === null) return;
    try {
      this.#epoll.add(this.fd, EPOLLIN, this.#tag);
      this.#watched = true;
    } catch (error) {
      this.#warn("accept-failed", (error as Error).message);
      this.pausedUntil = performance.now() + PAUSE_MS;
    }
  }

  /**
   * The server has a client. A second one waits in the backlog: watching the socket would only wake
   * the loop for nothing.
   */
  ignore(): void {
    this.pausedUntil = Number.POSITIVE_INFINITY;
    this.#warned = false;
    this.#unwatch();
  }

  /**
   * A client could not be accepted, usually because the process has no free descriptor. It stays in
   * the backlog, and the socket is not watched during the pause.
   */
  pause(error: Error): void {
    this.#counters.acceptFailures++;
    if (!this.#warned) this.#warn("accept-failed", `a client waits: ${error.message}`);
    this.#warned = true;
    this.#unwatch();
    this.pausedUntil = performance.now() + PAUSE_MS;
  }

  #unwatch(): void {
    if (this.#watched) this.#epoll?.remove(this.fd);
    this.#watched = false;
  }

  /** Closes the socket, which takes it out of the epoll set, and removes its file. */
  close(): void {
    if (this.fd < 0) return;
    close(this.fd);
    this.fd = -1;
    this.#watched = false;
    removeSocket(this.#path!, this.#inode);
  }
}

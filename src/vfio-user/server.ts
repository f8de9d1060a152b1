/** Serves one PCI device to one client (a virtual machine) at a time, over a UNIX socket. */
import type { ClaimedFds, SavedFds } from "../memory/record.ts";
import { RegionTable } from "../memory/regions.ts";
import { EPOLLIN, type Epoll } from "../os/epoll.ts";
import { prepareToSignalPeers } from "../os/eventfd.ts";
import { close } from "../os/fd.ts";
import {
  accept,
  listenUnix,
  removeSocket,
  type SocketAccess,
  shutdown,
  socketInode,
} from "../os/unix-socket.ts";
import { type Counters, newCounters } from "./counters.ts";
import type { DeviceHost, PciDevice } from "./device.ts";
import { FramingError, MessageStream } from "./framing.ts";
import { PciFunction } from "./pci.ts";
import { prepareServer, type ServerParts, type ServerRecord, saveServer } from "./persist.ts";
import { ReplyWriter } from "./replies.ts";
import { Session } from "./session.ts";

export interface ServerOptions {
  /** Where to listen; without it clients come by `adopt` only. */
  readonly socketPath?: string;
  /** Who may connect; default: the user who listens. */
  readonly access?: SocketAccess;
  /** Connections and resets, for a log. */
  readonly log?: (message: string) => void;
  /** What the operator should know: `code` is stable. */
  readonly onWarning?: (code: string, message: string) => void;
  /** Every answer is this late, in order: to see how clients live with a slow server. */
  readonly answerDelayMs?: number;
  /**
   * A client that has not sent a VERSION message so long after it connected is disconnected: others
   * wait behind it.
   */
  readonly greetingMs?: number;
  /**
   * Use guest memory in files that cannot be sealed, too: whoever shrinks one kills this process.
   */
  readonly allowUnsealed?: boolean;
}

/** After accept(2) failed. */
const ACCEPT_AGAIN_MS = 500;
/** QEMU sends VERSION as soon as it has connected. */
const GREETING_MS = 10_000;

/**
 * The caller owns the poll loop: `register` with its epoll set (or poll `pollFd`), call
 * `handleReadable` when it is readable, or at any time. One thread only.
 */
export class VfioUserServer implements DeviceHost {
  readonly counters: Counters = newCounters();
  readonly dma: RegionTable;
  readonly #device: PciDevice;
  readonly #pci: PciFunction;
  readonly #stream = new MessageStream();
  readonly #replies: ReplyWriter;
  readonly #session: Session;
  readonly #log: (message: string) => void;
  readonly #warn: (code: string, message: string) => void;
  readonly #path: string | undefined;
  readonly #inode: number = 0;
  readonly #greetingMs: number;
  #listener = -1;
  #connection = -1;
  #attached = false;
  /** When the client's VERSION is overdue. */
  #greetBy = 0;
  #closed = false;
  /** In the middle of a message: closing has to wait for its end. */
  #busy = false;
  #epoll: Epoll | null = null;
  #tag = 0;
  /** When the listener is to be watched again; infinity: it is, or a client is there. */
  #acceptAt = Number.POSITIVE_INFINITY;
  #acceptTold = false;

  /**
   * @throws OsError when the socket cannot be made, RangeError when the device's description is
   * invalid.
   */
  constructor(device: PciDevice, options: ServerOptions = {}) {
    this.#device = device;
    this.#log = options.log ?? (() => {});
    this.#warn = options.onWarning ?? (() => {});
    this.#pci = new PciFunction(device, this.counters);
    this.dma = new RegionTable({
      warn: this.#warn,
      allowUnsealed: options.allowUnsealed ?? false,
    });
    this.#replies = new ReplyWriter(options.answerDelayMs);
    this.#session = new Session(this.#pci, this.dma, this.#stream, this.#replies, this.counters, {
      negotiated: () => this.#attach(),
      warn: this.#warn,
    });
    prepareToSignalPeers();
    this.#greetingMs = options.greetingMs ?? GREETING_MS;
    this.#path = options.socketPath;
    if (this.#path === undefined) return;
    this.#listener = listenUnix(this.#path, options.access);
    this.#inode = socketInode(this.#path);
  }

  /**
   * The one descriptor worth polling now: the connection, or the listening socket while there is
   * none; or -1.
   */
  get pollFd(): number {
    return this.#connection >= 0 ? this.#connection : this.#listener;
  }

  /** The client's last message that was refused, and how; "": none was. */
  get lastRefusal(): string {
    return this.#session.lastRefusal;
  }

  get connected(): boolean {
    return this.#connection >= 0;
  }

  get busMaster(): boolean {
    return this.#pci.config.busMaster;
  }

  /** Keeps `pollFd` in the set from now on, under `tag`. */
  register(epoll: Epoll, tag: number): void {
    this.#epoll = epoll;
    this.#tag = tag;
    if (this.pollFd >= 0) epoll.add(this.pollFd, EPOLLIN, tag);
  }

  /** Takes a connected, non-blocking socket as the client. @throws Error while there is one. */
  adopt(fd: number): void {
    if (this.#connection >= 0) throw new Error("the device has a client: one at a time");
    // A second client waits in the backlog: looking at the listener would only wake the loop for
    // nothing.
    if (this.#listener >= 0) this.#epoll?.remove(this.#listener);
    this.#connection = fd;
    this.#epoll?.add(fd, EPOLLIN, this.#tag);
    this.#acceptTold = false;
    this.#session.restart();
    this.#greetBy = performance.now() + this.#greetingMs;
    this.counters.connections++;
    this.#log("client connected");
  }

  /**
   * Accepts a client, or takes what one receive call gives (at most 16 KiB) and carries it out.
   * With nothing there this is one system call. @returns the number of messages.
   */
  handleReadable(): number {
    if (this.#closed || (this.#connection < 0 && !this.#accept())) return 0;
    try {
      const n = this.#stream.receive(this.#connection);
      if (n < 0) return 0;
      if (n === 0) this.#disconnect("client closed the connection");
      return n === 0 ? 0 : this.#handleMessages();
    } catch (error) {
      // Framing broken, or the connection reset: the client is lost either way. Device errors never
      // get here.
      this.#busy = false;
      if (error instanceof FramingError) this.counters.disconnects++;
      this.#disconnect((error as Error).message);
      return 0;
    }
  }

  #accept(): boolean {
    if (this.#listener < 0 || this.#acceptAt !== Number.POSITIVE_INFINITY) return false;
    let fd = -1;
    try {
      fd = accept(this.#listener);
      if (fd >= 0) this.adopt(fd);
      return fd >= 0;
    } catch (error) {
      this.#acceptLater(fd, error as Error);
      return false;
    }
  }

  /**
   * No descriptor is free, mostly. The client stays in the backlog; the listener is not watched
   * meanwhile.
   */
  #acceptLater(fd: number, error: Error): void {
    this.counters.acceptFailures++;
    if (!this.#acceptTold) this.#warn("accept-failed", `a client waits: ${error.message}`);
    this.#acceptTold = true;
    if (fd >= 0) {
      close(fd);
      this.#connection = -1;
    } else this.#epoll?.remove(this.#listener);
    this.#acceptAt = performance.now() + ACCEPT_AGAIN_MS;
  }

  #watchListener(): void {
    this.#acceptAt = Number.POSITIVE_INFINITY;
    if (this.#closed || this.#listener < 0 || this.#connection >= 0) return;
    try {
      this.#epoll?.add(this.#listener, EPOLLIN, this.#tag);
    } catch (error) {
      this.#warn("accept-failed", (error as Error).message);
      this.#acceptAt = performance.now() + ACCEPT_AGAIN_MS;
    }
  }

  /**
   * The state of the client and its session, between two messages; descriptors go to `fds` and stay
   * this server's. To hand the client over: save, restore in another server, `abandon` here.
   */
  save(fds: SavedFds): ServerRecord {
    if (this.#busy) throw new Error("a message is being handled");
    return saveServer(this.#parts(), this.#connection, fds);
  }

  /**
   * Continues with the client of another server, whose device was described alike. The device hears
   * of its machine as if the client had just said everything, and then restores its own state.
   * @throws RecordError; then nothing was changed, and the descriptors stay the caller's
   */
  restore(value: unknown, fds: ClaimedFds): void {
    if (this.#connection >= 0) throw new Error("the device has a client: one at a time");
    const { connection, commit } = prepareServer("server", value, this.#parts(), fds);
    if (connection >= 0) this.adopt(connection);
    commit();
    if (this.#session.negotiated) this.#guard(() => this.#reattach());
  }

  #reattach(): void {
    this.#attach();
    for (const range of this.dma.ranges) this.#device.dmaMapped?.(range);
    if (this.busMaster) this.#device.busMasterChanged(true);
  }

  /**
   * Forgets the client, which another server has now: the device stops, and this process's
   * descriptors are closed, but the connection is not shut down.
   */
  abandon(): void {
    const fd = this.#connection;
    if (fd < 0) return;
    this.#connection = -1;
    this.#epoll?.remove(fd);
    close(fd);
    this.#forget();
  }

  #parts(): ServerParts {
    return {
      ...{ session: this.#session, stream: this.#stream, replies: this.#replies, pci: this.#pci },
      ...{ dma: this.dma, counters: this.counters },
    };
  }

  #handleMessages(): number {
    this.#busy = true;
    const handled = this.#handleComplete();
    this.#busy = false;
    if (this.#closed) this.#finish();
    return handled;
  }

  #handleComplete(): number {
    let handled = 0;
    while (this.#stream.next()) {
      handled++;
      if (this.#session.handle(this.#connection)) {
        if (this.#closed) break;
        continue;
      }
      this.counters.disconnects++;
      this.#disconnect("client does not take its answers");
      break;
    }
    return handled;
  }

  /** Fires an MSI-X vector. */
  fire(vector: number): void {
    this.#pci.fire(vector);
  }

  /**
   * Milliseconds until `handleTimers` has work: late answers, a client to accept, one that says
   * nothing; -1 when it has none.
   */
  get timeoutMs(): number {
    const late = this.#replies.timeoutMs;
    if (this.#attached) return late;
    const at = this.#connection < 0 ? this.#acceptAt : this.#greetBy;
    if (at === Number.POSITIVE_INFINITY) return late;
    const left = Math.max(0, Math.ceil(at - performance.now()));
    return late < 0 ? left : Math.min(left, late);
  }

  /**
   * Sends late answers that are due, accepts again when it could not before, lets a client go that
   * says nothing.
   */
  handleTimers(): void {
    const waits = this.#acceptAt !== Number.POSITIVE_INFINITY;
    if (waits && performance.now() >= this.#acceptAt) this.#watchListener();
    if (this.#connection < 0) return;
    if (!this.#attached && performance.now() >= this.#greetBy) {
      this.counters.disconnects++;
      return this.#disconnect(`client sent no VERSION within ${this.#greetingMs / 1000} s`);
    }
    if (this.#replies.flush(this.#connection)) return;
    this.#disconnect("client does not take its answers");
  }

  #attach(): void {
    this.#attached = true;
    this.#device.attached?.(this);
  }

  /**
   * Lets the client go: the device stops first, then memory and interrupts are given back. Shutting
   * down and reading to the end before closing keeps QEMU alive, which aborts when its connection
   * is reset.
   */
  #disconnect(reason: string): void {
    const fd = this.#connection;
    if (fd < 0) return;
    this.#connection = -1;
    this.#epoll?.remove(fd);
    shutdown(fd);
    this.#stream.drain(fd);
    close(fd);
    this.#forget();
    this.#log(`client gone: ${reason}`);
  }

  #forget(): void {
    this.#stream.clear();
    this.#replies.clear();
    this.#stopDevice();
    this.#watchListener();
  }

  /** Every step runs, whatever the device throws in the one before. */
  #stopDevice(): void {
    this.#guard(() => this.#pci.reset());
    this.#guard(() => this.#session.unmapAll());
    this.#pci.vectors.clear();
    if (this.#attached) this.#guard(() => this.#device.detached?.());
    this.#attached = false;
    this.dma.clear();
  }

  #guard(step: () => void): void {
    try {
      step();
    } catch (error) {
      this.counters.deviceErrors++;
      this.#warn("device-error", String((error as Error)?.stack ?? error));
    }
  }

  /**
   * Stops serving: disconnects the client in order, removes the socket file. Called by the device
   * while it handles an access, this happens right after that access.
   */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    if (!this.#busy) this.#finish();
  }

  #finish(): void {
    this.#disconnect("server closed");
    if (this.#listener >= 0) this.#stopListening();
    this.#stream.close();
    this.#replies.close();
  }

  #stopListening(): void {
    // Closing takes it out of the epoll set, where it is unless a client was connected.
    close(this.#listener);
    this.#listener = -1;
    removeSocket(this.#path!, this.#inode);
  }
}

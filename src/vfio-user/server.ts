/** Serves one PCI device to one client (a virtual machine) at a time, over a UNIX socket. */
import type { ClaimedFds, SavedFds } from "../memory/record.ts";
import { RegionTable } from "../memory/regions.ts";
import { EPOLLIN, type Epoll } from "../os/epoll.ts";
import { prepareToSignalPeers } from "../os/eventfd.ts";
import { close } from "../os/fd.ts";
import { shutdown } from "../os/unix-socket.ts";
import { type Counters, newCounters } from "./counters.ts";
import type { DeviceHost, PciDevice } from "./device.ts";
import { FramingError, MessageStream } from "./framing.ts";
import type { MessageJournal } from "./journal.ts";
import { Lateness } from "./lateness.ts";
import { Listener } from "./listener.ts";
import { PciFunction } from "./pci.ts";
import { prepareServer, type ServerParts, type ServerRecord, saveServer } from "./persist.ts";
import { ReplyWriter } from "./replies.ts";
import type { ServerOptions } from "./server-options.ts";
import { Session } from "./session.ts";

/** QEMU sends VERSION as soon as it has connected. */
const GREETING_MS = 10_000;

/**
 * The caller owns the poll loop: it registers with an epoll set (or polls `pollFd`), and calls
 * `handleReadable` when that is readable, or at any time. One thread only.
 */
export class VfioUserServer implements DeviceHost {
  readonly counters: Counters = newCounters();
  readonly dma: RegionTable;
  readonly #device: PciDevice;
  readonly #pci: PciFunction;
  readonly #stream: MessageStream;
  readonly #replies: ReplyWriter;
  readonly #session: Session;
  readonly #log: (message: string) => void;
  readonly #warn: (code: string, message: string) => void;
  readonly #listener: Listener;
  readonly #greetingMs: number;
  readonly #lateness: Lateness;
  readonly #journal: MessageJournal | null;
  #connection = -1;
  #attached = false;
  /** Deadline of the client's VERSION. */
  #greetBy = 0;
  #closed = false;
  /** A message is being handled: `close` takes effect after it. */
  #busy = false;
  #epoll: Epoll | null = null;
  #tag = 0;

  /**
   * @throws OsError if the socket cannot be made, RangeError if the device's description is invalid
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
    const { answerDelayMs, lateAfterMs, journal = null } = options;
    this.#journal = journal;
    this.#stream = new MessageStream(journal);
    this.#replies = new ReplyWriter(this.counters, answerDelayMs, lateAfterMs, journal);
    this.#lateness = new Lateness(options.lateAfterMs ?? Number.POSITIVE_INFINITY);
    this.#session = new Session(this.#pci, this.dma, this.#stream, this.#replies, this.counters, {
      negotiated: () => this.#attach(),
      isLate: () => this.#lateness.late,
      handled: (reply, changed) => this.#handled(reply, changed),
      warn: this.#warn,
    });
    prepareToSignalPeers();
    this.#greetingMs = options.greetingMs ?? GREETING_MS;
    const { socketPath, access } = options;
    this.#listener = new Listener(socketPath, access, this.counters, this.#warn);
  }

  /** The descriptor to poll: the connection, or without one the listening socket; or -1. */
  get pollFd(): number {
    return this.#connection >= 0 ? this.#connection : this.#listener.fd;
  }

  /** See `Session`. */
  get lastRefusal(): string {
    return this.#session.lastRefusal;
  }

  /** Where clients wait; -1: none can. */
  get listeningFd(): number {
    return this.#listener.fd;
  }

  /** Goes on with the listening socket of another process. Call it before `restore`. */
  listenOn(path: string, fd: number): void {
    this.#listener.adopt(path, fd);
    if (this.#connection < 0) this.#listener.watch();
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
    this.#listener.register(epoll, tag);
    if (this.#connection >= 0) epoll.add(this.#connection, EPOLLIN, tag);
    else this.#listener.watch();
  }

  /** Takes a connected, non-blocking socket as the client. @throws Error while there is one. */
  adopt(fd: number): void {
    if (this.#connection >= 0) throw new Error("the device has a client: one at a time");
    this.#listener.ignore();
    this.#connection = fd;
    this.#epoll?.add(fd, EPOLLIN, this.#tag);
    this.#session.restart();
    const recovers = this.#journal?.recovers === true;
    if (!recovers) this.#journal?.restart();
    this.#lateness.restart(recovers ? this.#journal?.silentMs : 0);
    this.#greetBy = performance.now() + this.#greetingMs;
    this.counters.connections++;
    this.#log("client connected");
  }

  /**
   * Accepts a client, or receives once (at most 16 KiB) and handles the messages that are complete.
   * One system call if nothing has arrived. @returns the number of messages
   */
  handleReadable(): number {
    if (this.#closed || (this.#connection < 0 && !this.#accept())) return 0;
    try {
      this.#lateness.receiving(this.#stream.emptied);
      const n = this.#stream.receive(this.#connection);
      if (n < 0) return 0;
      if (n === 0) this.#disconnect("client closed the connection");
      return n === 0 ? 0 : this.#handleMessages();
    } catch (error) {
      // Invalid framing or a reset connection: the client is lost. The session catches exceptions
      // of the device.
      this.#busy = false;
      if (error instanceof FramingError) this.counters.disconnects++;
      this.#disconnect((error as Error).message);
      return 0;
    }
  }

  #accept(): boolean {
    let fd = -1;
    try {
      fd = this.#listener.accept();
      if (fd < 0) return false;
      // Before the keeper has it: what was counted for the client before is not this one's.
      this.#journal?.restart();
      this.#journal?.accepted(fd);
      this.adopt(fd);
      this.#keep();
      return true;
    } catch (error) {
      if (fd >= 0) close(fd);
      this.#connection = -1;
      this.#listener.pause(error as Error);
      return false;
    }
  }

  /**
   * Returns the state of the client and its session, between two messages. Descriptors are added to
   * `fds` and stay this server's. To hand the client over: save, restore in another server, then
   * `abandon` here.
   */
  save(fds: SavedFds): ServerRecord {
    if (this.#busy && this.#journal === null) throw new Error("a message is being handled");
    return saveServer(this.#parts(), this.#connection, fds);
  }

  /**
   * Takes over the client of another server, whose device has the same description. The device gets
   * `attached`, `dmaMapped` and `busMasterChanged` as for a new client; the caller restores the
   * device's own state afterwards.
   * @throws RecordError; then nothing was changed, and the descriptors stay the caller's
   */
  restore(value: unknown, fds: ClaimedFds): void {
    if (this.#connection >= 0) throw new Error("the device has a client: one at a time");
    const { connection, commit } = prepareServer("server", value, this.#parts(), fds);
    if (connection >= 0) this.adopt(connection);
    commit();
    if (this.#session.negotiated) this.#guard(() => this.#reattach());
  }

  /** After `restore` of what a process that crashed has saved. @param executed by then */
  recover(executed: number): void {
    if (this.#connection < 0 || this.#journal?.recover(this.#connection, executed) !== false)
      return;
    this.counters.disconnects++;
    this.#disconnect("its messages before the crash do not fit the saved state");
  }

  #reattach(): void {
    this.#attach();
    for (const range of this.dma.ranges) this.#device.dmaMapped?.(range);
    if (this.busMaster) this.#device.busMasterChanged(true);
  }

  /**
   * Releases a client that another server has taken over: the device stops and descriptors are
   * closed, but the connection is not shut down.
   */
  abandon(): void {
    const fd = this.#connection;
    if (fd < 0) return;
    this.#connection = -1;
    this.#epoll?.remove(fd);
    close(fd);
    this.#forget();
  }

  /** Ends unnoticed: another server has client and listening socket. */
  leave(): void {
    this.#closed = true;
    this.abandon();
    this.#listener.leave();
    this.#finish();
  }

  #parts(): ServerParts {
    const parts = { session: this.#session, stream: this.#stream, replies: this.#replies };
    return { ...parts, pci: this.#pci, dma: this.dma, counters: this.counters };
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
      return handled;
    }
    this.#stream.settle(this.#connection);
    return handled;
  }

  #handled(reply: number, changed: boolean): void {
    const { endInReceived, isContinued } = this.#stream;
    this.#journal?.handled(endInReceived, reply, changed || isContinued);
  }

  /** Fires an MSI-X vector. */
  fire(vector: number): void {
    this.#pci.fire(vector);
  }

  /**
   * Milliseconds until `handleTimers` has work: delayed answers, the end of a pause in accepting, a
   * VERSION that is overdue; -1 if it has none.
   */
  get timeoutMs(): number {
    const late = this.#replies.timeoutMs;
    if (this.#attached) return late;
    const at = this.#connection < 0 ? this.#listener.pausedUntil : this.#greetBy;
    if (at === Number.POSITIVE_INFINITY) return late;
    const left = Math.max(0, Math.ceil(at - performance.now()));
    return late < 0 ? left : Math.min(left, late);
  }

  /**
   * Sends delayed answers that are due, ends a pause in accepting, disconnects a client that sent
   * no VERSION in time.
   */
  handleTimers(): void {
    if (performance.now() >= this.#listener.pausedUntil) this.#listener.watch();
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
   * Disconnects the client: the device stops first, then memory and interrupts are released. QEMU
   * aborts if its connection is reset, so the socket is shut down and read to the end before it is
   * closed.
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
    this.#keep();
    this.#log(`client gone: ${reason}`);
  }

  #keep(): void {
    const journal = this.#journal;
    journal?.commit(journal.executed);
  }

  #forget(): void {
    this.#stream.clear();
    this.#replies.clear();
    this.#session.negotiated = false;
    this.#stopDevice();
    if (!this.#closed) this.#listener.watch();
  }

  /** Runs every step, also after an exception of the device in an earlier one. */
  #stopDevice(): void {
    this.#guard(() => this.#pci.reset());
    this.#guard(() => this.#session.memory.unmapAll());
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
   * Stops serving: disconnects the client and removes the socket file. If the device calls it while
   * it handles an access, this happens after that access.
   */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    if (!this.#busy) this.#finish();
  }

  #finish(): void {
    this.#disconnect("server closed");
    this.#listener.close();
    this.#stream.close();
    this.#replies.close();
  }
}

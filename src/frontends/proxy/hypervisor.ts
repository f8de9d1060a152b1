/**
 * The VMM's end of the protocol: listens, waits for a backend, and asks it for what a guest's
 * registers want. It drives any backend that speaks the protocol; every wait has a deadline, every
 * reply is checked.
 */
import { EPOLLIN, Epoll } from "../../os/epoll.ts";
import { createEventFd, drainEventFd, signalPeer } from "../../os/eventfd.ts";
import { close } from "../../os/fd.ts";
import { accept, listenUnix, removeSocket, socketInode } from "../../os/unix-socket.ts";
import {
  CONTEXT_SIZES,
  FLAG_ERROR,
  getU64,
  MEMORY_MAP,
  NOTIFIER,
  PARAMETERS,
  putU64,
  QUEUE_CONTEXT,
  QUEUES,
  REGION,
  REQUEST,
  REQUESTS,
  type RequestName,
  VERSION,
  VERSION_MASK,
} from "./protocol.ts";
import { ProxyStream } from "./stream.ts";

/** For one reply. A backend that stops drains first. */
const REPLY_MS = 5000;
const LISTENER_TAG = 100;
const SOCKET_TAG = 101;

/** The backend is gone, or its replies make no sense; the connection is closed. */
export class BackendError extends Error {
  readonly code = "BACKEND";
  constructor(message: string) {
    super(message);
    this.name = "BackendError";
  }
}

/** The backend answered with an error. */
export class RefusedError extends BackendError {
  readonly request: RequestName;
  constructor(request: RequestName) {
    super(`the backend refuses ${request}`);
    this.name = "RefusedError";
    this.request = request;
  }
}

/** A piece of guest memory in a file. */
export interface SharedRegion {
  readonly fd: number;
  readonly address: number;
  readonly size: number;
  readonly fileOffset: number;
}

export interface BackendParameters {
  readonly rxBufs: number;
  readonly txBufs: number;
}

/** What a backend told at its start. */
export interface BackendOffer {
  readonly features: number;
  readonly rxContextSize: number;
  readonly txContextSize: number;
  /** Object file with the programs; the caller's to close. */
  readonly programsFd: number;
}

export class ProxyHypervisor {
  readonly #path: string;
  readonly #replyMs: number;
  readonly #listener: number;
  readonly #inode: number;
  readonly #epoll = new Epoll(8);
  #stream: ProxyStream | null = null;
  readonly #kicks: number[] = [];
  readonly #interrupts: number[] = [];
  readonly #upgradeFd = createEventFd();

  /** Listens. @throws OsError if the socket cannot be made */
  constructor(path: string, { replyMs = REPLY_MS }: { readonly replyMs?: number } = {}) {
    this.#path = path;
    this.#replyMs = replyMs;
    this.#listener = listenUnix(path);
    this.#inode = socketInode(path);
    this.#epoll.add(this.#listener, EPOLLIN, LISTENER_TAG);
    for (let queue = 0; queue < QUEUES; queue++) {
      this.#kicks.push(createEventFd());
      this.#interrupts.push(createEventFd());
      this.#epoll.add(this.#interrupts[queue], EPOLLIN, queue);
    }
  }

  get path(): string {
    return this.#path;
  }

  get connected(): boolean {
    return this.#stream !== null;
  }

  /** Waits for a backend. @returns false if none came in time */
  accept(timeoutMs: number): boolean {
    for (const end = performance.now() + timeoutMs; ; ) {
      const fd = accept(this.#listener);
      if (fd >= 0) {
        this.disconnect();
        this.#stream = new ProxyStream(fd);
        this.#epoll.add(fd, EPOLLIN, SOCKET_TAG);
        return true;
      }
      const left = end - performance.now();
      if (left <= 0) return false;
      this.#epoll.wait(Math.min(Math.ceil(left), 20));
    }
  }

  /** Closes the connection, as a VMM that exits. */
  disconnect(): void {
    if (this.#stream === null) return;
    this.#epoll.remove(this.#stream.fd);
    this.#stream.close();
    this.#stream = null;
  }

  /**
   * One request and its reply.
   * @returns the reply's payload, and its descriptor or -1 (the caller's)
   * @throws RefusedError for an error reply; BackendError if the connection is unusable
   */
  request(
    name: RequestName,
    payload: Uint8Array = new Uint8Array(0),
    fds: readonly number[] = [],
  ): { readonly payload: DataView; readonly fd: number } {
    const stream = this.#stream;
    if (stream === null) throw new BackendError(`no backend is connected: ${name} cannot be asked`);
    try {
      stream.send(REQUEST[name], VERSION, payload, fds);
      this.#await(stream, name);
      return this.#check(stream, name);
    } catch (error) {
      if (error instanceof RefusedError) throw error;
      this.disconnect();
      throw error instanceof BackendError ? error : new BackendError((error as Error).message);
    }
  }

  #await(stream: ProxyStream, name: RequestName): void {
    for (const end = performance.now() + this.#replyMs; ; ) {
      const got = stream.receive();
      if (got === "message") return;
      if (got === "end") throw new BackendError(`the backend closed the connection at ${name}`);
      const left = end - performance.now();
      if (left <= 0) throw new BackendError(`no reply to ${name} within ${this.#replyMs} ms`);
      this.#waitForSocket(Math.ceil(left));
    }
  }

  /**
   * Interrupts stay pending meanwhile, and would wake the wait at once: they are looked past in
   * short steps.
   */
  #waitForSocket(timeoutMs: number): void {
    const ready = this.#epoll.wait(timeoutMs);
    for (let i = 0; i < ready; i++) if (this.#epoll.tag(i) === SOCKET_TAG) return;
  }

  #check(stream: ProxyStream, name: RequestName): { payload: DataView; fd: number } {
    const { type, flags, payload } = stream;
    const error = (flags & FLAG_ERROR) !== 0;
    const size = error ? 0 : REQUESTS[name].replySize;
    if (type !== REQUEST[name] || (flags & VERSION_MASK) !== VERSION) {
      throw new BackendError(`a reply of type ${type}, flags ${flags}, to ${name}`);
    }
    if (payload.byteLength !== size) {
      throw new BackendError(
        `a reply to ${name} with ${payload.byteLength} bytes instead of ${size}`,
      );
    }
    const fd = name === "GET_PROGRAMS" && !error ? (stream.fds.shift() ?? -1) : -1;
    stream.dropFds();
    if (error) throw new RefusedError(name);
    return { payload, fd };
  }

  /* The requests */

  /** The handshake of a VMM with a backend that has just connected. */
  start({ rxBufs, txBufs }: BackendParameters, features: number): BackendOffer {
    const offered = getU64(this.request("GET_FEATURES").payload, 0);
    this.setFeatures(offered & features);
    const sizes = this.setParameters(1, 1, rxBufs, txBufs);
    const { fd: programsFd } = this.request("GET_PROGRAMS");
    if (programsFd < 0) throw new BackendError("GET_PROGRAMS brought no descriptor");
    for (let queue = 0; queue < QUEUES; queue++) {
      this.setKick(queue, true);
      this.setInterrupt(queue, false);
    }
    this.request("SET_UPGRADE", notifier(0), [this.#upgradeFd]);
    return { features: offered, programsFd, ...sizes };
  }

  setFeatures(features: number): void {
    const payload = new Uint8Array(8);
    putU64(new DataView(payload.buffer), 0, features);
    this.request("SET_FEATURES", payload);
  }

  /** @throws BackendError for context sizes that no driver allocates */
  setParameters(rxQueues: number, txQueues: number, rxBufs: number, txBufs: number) {
    const payload = new Uint8Array(REQUESTS.SET_PARAMETERS.size);
    const view = new DataView(payload.buffer);
    view.setUint32(PARAMETERS.rxQueues, rxQueues, true);
    view.setUint32(PARAMETERS.txQueues, txQueues, true);
    view.setUint32(PARAMETERS.rxBufs, rxBufs, true);
    view.setUint32(PARAMETERS.txBufs, txBufs, true);
    const reply = this.request("SET_PARAMETERS", payload).payload;
    return {
      rxContextSize: reply.getUint32(CONTEXT_SIZES.rx, true),
      txContextSize: reply.getUint32(CONTEXT_SIZES.tx, true),
    };
  }

  setMemory(regions: readonly SharedRegion[]): void {
    const fds = regions.map((region) => region.fd);
    this.request("SET_MEM_TABLE", memoryMap(regions), fds);
  }

  setContext(queue: number, address: number): void {
    const payload = new Uint8Array(REQUESTS.SET_QUEUE_CTX.size);
    const view = new DataView(payload.buffer);
    view.setUint32(QUEUE_CONTEXT.queue, queue, true);
    putU64(view, QUEUE_CONTEXT.address, address);
    this.request("SET_QUEUE_CTX", payload);
  }

  setKick(queue: number, present: boolean): void {
    this.request("SET_QUEUE_KICK", notifier(queue), present ? [this.#kicks[queue]] : []);
  }

  setInterrupt(queue: number, present: boolean): void {
    this.request("SET_QUEUE_IRQ", notifier(queue), present ? [this.#interrupts[queue]] : []);
  }

  enable(direction: "RX" | "TX"): void {
    this.request(`${direction}_ENABLE`);
  }

  disable(direction: "RX" | "TX"): void {
    this.request(`${direction}_DISABLE`);
  }

  /* Events */

  /** The guest rings a doorbell. */
  kick(queue: number): void {
    signalPeer(this.#kicks[queue]);
  }

  /** Interrupts of a queue since the last call. */
  interrupts(queue: number): number {
    return drainEventFd(this.#interrupts[queue]);
  }

  /**
   * Waits until an interrupt is there, or the backend does something. @returns false on a timeout
   */
  wait(timeoutMs: number): boolean {
    return this.#epoll.wait(timeoutMs) > 0;
  }

  /** Did the backend ask for an upgrade since the last call? */
  upgradeWanted(): boolean {
    return drainEventFd(this.#upgradeFd) > 0;
  }

  close(): void {
    this.disconnect();
    for (const fd of [...this.#kicks, ...this.#interrupts, this.#upgradeFd, this.#listener])
      close(fd);
    removeSocket(this.#path, this.#inode);
    this.#epoll.close();
  }
}

function notifier(queue: number): Uint8Array {
  const payload = new Uint8Array(REQUESTS.SET_QUEUE_KICK.size);
  new DataView(payload.buffer).setUint32(NOTIFIER.queue, queue, true);
  return payload;
}

/** The payload of SET_MEM_TABLE. */
export function memoryMap(regions: readonly Omit<SharedRegion, "fd">[]): Uint8Array {
  const payload = new Uint8Array(REQUESTS.SET_MEM_TABLE.size);
  const view = new DataView(payload.buffer);
  view.setUint32(MEMORY_MAP.count, regions.length, true);
  for (const [i, { address, size, fileOffset }] of regions.entries()) {
    const at = MEMORY_MAP.regions + i * MEMORY_MAP.REGION_SIZE;
    putU64(view, at + REGION.address, address);
    putU64(view, at + REGION.size, size);
    putU64(view, at + REGION.offset, fileOffset);
  }
  return payload;
}

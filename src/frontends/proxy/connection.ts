/**
 * The backend's end of the socket, served from the engine's loop: requests in,
 * replies out, kicks noticed. Any request that can be told from the next one
 * gets a reply; if it cannot, the connection ends.
 */
import type { RingFormat } from "../../devices/format.ts";
import { CONTROL_TAG, type Control } from "../../engine/loop.ts";
import type { QueuePair } from "../../engine/pair.ts";
import { EPOLLET, EPOLLIN, type Epoll } from "../../os/epoll.ts";
import { OsError } from "../../os/errors.ts";
import { close } from "../../os/fd.ts";
import { connectUnix } from "../../os/unix-socket.ts";
import { ProxyBackend } from "./backend.ts";
import type { Reply } from "./handlers.ts";
import { FLAG_ERROR, REQUESTS, requestName, VERSION, VERSION_MASK } from "./protocol.ts";
import { FramingError, ProxyStream } from "./stream.ts";

/** Messages per turn: packets wait meanwhile. */
const MESSAGE_BUDGET = 16;
/** Between attempts to connect again. */
const RECONNECT_MS = 200;
/** Where the loop never sleeps, it looks at the socket in one of so many idle turns. */
const LOOK_EVERY = 64;
const SOCKET_TAG = CONTROL_TAG;
const KICK_TAG = CONTROL_TAG + 1;
const NO_BYTES = new Uint8Array(0);

export interface ProxyFrontendOptions {
  readonly device: RingFormat;
  readonly features: number;
  readonly pair: QueuePair;
  /** The VMM's socket; null: only `adopt` brings connections. */
  readonly path: string | null;
  /** Hand out programs that the verifier refuses, too. */
  readonly allowUnverified?: boolean;
  /** Use guest memory in files that cannot be sealed, too. */
  readonly allowUnsealed?: boolean;
  /** Connect again when the VMM goes away, and wait for it at the start. */
  readonly reconnect: boolean;
  /** The loop never sleeps. */
  readonly busy?: boolean;
  readonly log: (level: "info" | "warn", text: string) => void;
  /**
   * The connection is over and nothing will follow: "" if the
   * VMM closed it, else what was wrong.
   */
  readonly ended: (problem: string) => void;
  /** For verbose logs. */
  readonly trace?: (text: string) => void;
}

/** Here the server is the VMM. */
function howToStartQemu(path: string): string {
  const words = `-chardev socket,id=c0,path=${path},server -netdev bpfhv-proxy,id=n0,chardev=c0`;
  return (
    `start the original's QEMU fork first, with ${words} -device bpfhv-pci,netdev=n0 and ` +
    "shared guest memory, or wait for it with --reconnect; stock QEMU is served by `bpfhv serve`"
  );
}

export class BackendConnection implements Control {
  readonly backend: ProxyBackend;
  readonly counters = { connections: 0, messages: 0, kicks: 0 };
  /** When the last request came, for whoever reports while nothing else happens. */
  lastMessageAt = 0;
  readonly #options: ProxyFrontendOptions;
  #epoll: Epoll | null = null;
  #stream: ProxyStream | null = null;
  /** Between connections. */
  #spare: ProxyStream | null = null;
  #connectAt = Number.POSITIVE_INFINITY;
  #idleTurns = 0;
  #closed = false;

  /** @throws OsError if the VMM does not listen, unless `reconnect` is set */
  constructor(options: ProxyFrontendOptions) {
    this.#options = options;
    this.backend = new ProxyBackend({
      ...{ device: options.device, features: options.features, pair: options.pair },
      allowUnverified: options.allowUnverified ?? false,
      allowUnsealed: options.allowUnsealed ?? false,
      // Each kick is reported once and never read: no call of ours waits for the VMM, whatever
      // flags it sets, and a counter that it keeps above 0 does not wake the loop again.
      watchKick: (queue, fd) => this.#epoll?.add(fd, EPOLLIN | EPOLLET, KICK_TAG + queue),
      unwatchKick: (_queue, fd) => this.#epoll?.remove(fd),
      warn: (text) => options.log("warn", text),
    });
    if (options.path !== null) this.#connect(options.path);
  }

  get connected(): boolean {
    return this.#stream !== null;
  }

  #connect(path: string): void {
    try {
      this.adopt(connectUnix(path, howToStartQemu(path)));
      this.#connectAt = Number.POSITIVE_INFINITY;
    } catch (error) {
      if (!this.#options.reconnect || !(error instanceof OsError)) throw error;
      if (this.counters.connections === 0 && this.#connectAt === Number.POSITIVE_INFINITY) {
        this.#options.log(
          "warn",
          `QEMU does not listen on ${path} (${error.code}): waiting for it`,
        );
      }
      this.#connectAt = performance.now() + RECONNECT_MS;
    }
  }

  /** Serves a connected socket, which is the frontend's from now on. */
  adopt(fd: number): void {
    this.#spare?.reconnect(fd);
    this.#stream = this.#spare ?? new ProxyStream(fd);
    this.#spare = null;
    this.#epoll?.add(fd, EPOLLIN, SOCKET_TAG);
    this.counters.connections++;
    this.#options.log("info", "connected");
  }

  register(epoll: Epoll): void {
    this.#epoll = epoll;
    if (this.#stream !== null) epoll.add(this.#stream.fd, EPOLLIN, SOCKET_TAG);
  }

  get timeoutMs(): number {
    if (this.#connectAt === Number.POSITIVE_INFINITY) return -1;
    return Math.max(1, Math.ceil(this.#connectAt - performance.now()));
  }

  woken(tag: number): boolean {
    const proxied = this.backend.queues[tag - KICK_TAG];
    if (proxied === undefined || proxied.kickFd < 0) return false;
    this.counters.kicks++;
    proxied.queue.kicked();
    this.#options.trace?.(`kick ${proxied.name}`);
    return true;
  }

  handle(): number {
    if (this.#options.busy && ++this.#idleTurns % LOOK_EVERY !== 0) return 0;
    if (this.#stream === null) return this.#reconnect();
    let messages = 0;
    while (messages < MESSAGE_BUDGET && this.#next()) messages++;
    return messages;
  }

  #reconnect(): number {
    const { path } = this.#options;
    if (path === null || performance.now() < this.#connectAt) return 0;
    this.#connect(path);
    return 0;
  }

  /** One message. @returns false if there is none */
  #next(): boolean {
    const stream = this.#stream;
    if (stream === null) return false;
    try {
      const got = stream.receive();
      if (got === "end") this.#end("");
      if (got !== "message") return false;
      this.counters.messages++;
      this.lastMessageAt = performance.now();
      this.#reply(stream);
      return true;
    } catch (error) {
      if (!(error instanceof FramingError) && !(error instanceof OsError)) throw error;
      this.#end(error.message);
      return false;
    }
  }

  #reply(stream: ProxyStream): void {
    const { type } = stream;
    const reply = this.#answer(stream);
    this.#options.trace?.(
      `${requestName(type) ?? `request ${type}`}: ${"refused" in reply ? reply.refused : "done"}`,
    );
    stream.dropFds();
    if ("refused" in reply) return stream.send(type, VERSION | FLAG_ERROR, NO_BYTES);
    try {
      stream.send(
        type,
        VERSION,
        reply.payload ?? NO_BYTES,
        reply.fd === undefined ? [] : [reply.fd],
      );
    } finally {
      if (reply.fd !== undefined) close(reply.fd);
    }
  }

  /** Checks what holds for every message, then has the backend answer it. */
  #answer(stream: ProxyStream): Reply {
    const { type, flags, payload } = stream;
    const name = requestName(type);
    let refused = "";
    if ((flags & VERSION_MASK) !== VERSION) {
      refused = `protocol version ${flags & VERSION_MASK}: this is version ${VERSION}`;
    } else if (name === undefined) refused = `unknown request ${type}`;
    else if (payload.byteLength !== REQUESTS[name].size) {
      refused = `${name} with ${payload.byteLength} bytes of payload: it has ${REQUESTS[name].size}`;
    } else if (stream.tooManyFds) refused = `${name} with more descriptors than a message has`;
    else return this.backend.handle(name, payload, stream.fds);
    this.backend.refuse(refused);
    return { refused };
  }

  /** The connection is over. What the guest published is still sent. */
  #end(problem: string): void {
    const stream = this.#stream;
    if (stream === null) return;
    this.#stream = null;
    this.backend.release();
    this.#epoll?.remove(stream.fd);
    stream.disconnect();
    this.#spare = stream;
    if (this.#closed) return;
    const { reconnect, path, log, ended } = this.#options;
    log(problem === "" ? "info" : "warn", problem === "" ? "disconnected" : problem);
    if (reconnect && path !== null) this.#connectAt = performance.now() + RECONNECT_MS;
    else ended(problem);
  }

  /** Stops in order: packets drained, descriptors closed. */
  close(): void {
    this.#closed = true;
    this.#end("");
    this.#spare?.close();
    this.#spare = null;
  }
}

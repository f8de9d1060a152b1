/**
 * Messages with descriptors between the main threads of two processes, over a connected UNIX
 * socket. A message is a header (bytes of JSON, number of descriptors, u32 each), the JSON, then a
 * byte for each group of descriptors, which carries them.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { ECONNRESET, EPIPE } from "../os/errors.ts";
import { close } from "../os/fd.ts";
import { mapAnonymous } from "../os/memory.ts";
import { closePeer } from "../os/peer-close.ts";
import { SocketReceiver, sendMessage, shutdown } from "../os/unix-socket.ts";

const HEADER = 8;
/** A NIC with as many memory ranges as a VMM may have takes 10 MiB. */
const MAX_BYTES = 64 << 20;
const MAX_FDS = 4096;
/** Below what the kernel carries at a time (253). */
const GROUP = 128;
const CHUNK = 1 << 16;
/** Between two looks at the socket. */
const LOOK_MS = 1;

export interface ChannelMessage {
  readonly body: Readonly<Record<string, unknown>>;
  /** The receiver's. */
  readonly fds: readonly number[];
}

/** The other process closed the connection, or has ended. */
export class ChannelClosed extends Error {
  constructor() {
    super("the other process has closed the connection, or has ended");
    this.name = "ChannelClosed";
  }
}

export class FdChannel {
  readonly #fd: number;
  readonly #memory = mapAnonymous(CHUNK);
  readonly #bytes = new Uint8Array(this.#memory.view(0, CHUNK));
  readonly #receiver = new SocketReceiver(GROUP);
  #received: Buffer = Buffer.alloc(0);
  #fds: number[] = [];
  #isClosed = false;

  /** @param fd non-blocking; this channel's from here on */
  constructor(fd: number) {
    this.#fd = fd;
  }

  /** Sends text other than a message: what HTTP needs before. @throws ChannelClosed */
  async sendText(text: string): Promise<void> {
    await this.#sendAll(Buffer.from(text));
  }

  /** Receives such a text, up to an empty line. @throws ChannelClosed */
  async receiveText(longest: number, ms: number): Promise<string> {
    const by = performance.now() + ms;
    for (;;) {
      const end = this.#received.indexOf("\r\n\r\n");
      if (end >= 0) {
        const text = this.#received.subarray(0, end + 4).toString("latin1");
        this.#received = this.#received.subarray(end + 4);
        return text;
      }
      if (this.#received.length > longest) throw new Error("its answer is too long");
      await this.#more(by);
    }
  }

  /** What came behind a text. */
  get rest(): string {
    return this.#received.toString();
  }

  /**
   * Sends a message; the descriptors stay the caller's. One without any, that fits into the socket,
   * is sent at once: the other end gets all of it or nothing.
   * @throws ChannelClosed; OsError, as for too many descriptors in flight
   */
  async send(body: Readonly<Record<string, unknown>>, fds: readonly number[] = []): Promise<void> {
    const json = Buffer.from(JSON.stringify(body));
    const header = Buffer.alloc(HEADER);
    header.writeUInt32LE(json.length, 0);
    header.writeUInt32LE(fds.length, 4);
    await this.#sendAll(Buffer.concat([header, json]));
    for (let at = 0; at < fds.length; at += GROUP) {
      await this.#sendAll(Buffer.of(0), fds.slice(at, at + GROUP));
    }
  }

  /** @throws ChannelClosed; Error if nothing comes in time, or it is not a message */
  async receive(ms: number): Promise<ChannelMessage> {
    const by = performance.now() + ms;
    for (;;) {
      const message = this.#next();
      if (message !== null) return message;
      await this.#more(by);
    }
  }

  /**
   * Receives what the other end has sent so far, and ends the connection: what it sends from now on
   * fails there.
   * @returns null if there was nothing
   */
  finish(): ChannelMessage | null {
    // Once the socket is shut down, the other end cannot add to what lies in it.
    shutdown(this.#fd);
    try {
      while (this.#receiveSome() > 0);
    } catch {
      // Closed, or reset: what came before counts.
    }
    try {
      return this.#next();
    } catch {
      return null;
    }
  }

  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    for (const fd of this.#fds.splice(0)) closePeer(fd);
    close(this.#fd);
    this.#receiver.close();
    this.#memory.unmap();
  }

  async #sendAll(bytes: Buffer, fds?: readonly number[]): Promise<void> {
    let at = 0;
    while (at < bytes.length) {
      const part = bytes.subarray(at, at + CHUNK);
      if (this.#isClosed) throw new ChannelClosed();
      this.#bytes.set(part);
      const n = this.#sendSome(part.length, fds);
      if (n > 0) at += n;
      else await sleep(LOOK_MS);
    }
  }

  #sendSome(length: number, fds: readonly number[] | undefined): number {
    try {
      return sendMessage(this.#fd, this.#memory.address, length, fds);
    } catch (error) {
      const { errno } = error as { errno?: number };
      throw errno === EPIPE || errno === ECONNRESET ? new ChannelClosed() : error;
    }
  }

  async #more(by: number): Promise<void> {
    for (;;) {
      if (this.#isClosed) throw new ChannelClosed();
      if (this.#receiveSome() > 0) return;
      if (performance.now() > by) throw new Error("the other process does not answer in time");
      await sleep(LOOK_MS);
    }
  }

  /** @returns bytes; -1 if nothing has come @throws ChannelClosed at the end of the stream */
  #receiveSome(): number {
    let n: number;
    try {
      n = this.#receiver.receiveAt(this.#fd, this.#memory.address, CHUNK);
    } catch (error) {
      throw (error as { errno?: number }).errno === ECONNRESET ? new ChannelClosed() : error;
    }
    if (n === 0) throw new ChannelClosed();
    if (n < 0) return n;
    this.#fds.push(...this.#receiver.fds);
    this.#received = Buffer.concat([this.#received, this.#bytes.subarray(0, n)]);
    return n;
  }

  #next(): ChannelMessage | null {
    const received = this.#received;
    if (received.length < HEADER) return null;
    const [length, fds] = [received.readUInt32LE(0), received.readUInt32LE(4)];
    if (length > MAX_BYTES || fds > MAX_FDS) {
      throw new Error(`a message of ${length} bytes and ${fds} descriptors is too large`);
    }
    const end = HEADER + length + Math.ceil(fds / GROUP);
    if (received.length < end) return null;
    const body: unknown = JSON.parse(received.subarray(HEADER, HEADER + length).toString());
    if (typeof body !== "object" || body === null || this.#fds.length < fds) {
      throw new Error("a message is not an object, or descriptors are missing");
    }
    this.#received = received.subarray(end);
    return { body: body as Record<string, unknown>, fds: this.#fds.splice(0, fds) };
  }
}

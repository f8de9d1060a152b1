/**
 * The byte stream cut into messages. A receive never reaches past the message that it is in, so
 * descriptors that come with any byte of a message are that message's.
 */
import { close } from "../../os/fd.ts";
import { mapAnonymous, PAGE } from "../../os/memory.ts";
import { closePeer } from "../../os/peer-close.ts";
import { SocketReceiver, sendMessage } from "../../os/unix-socket.ts";
import { HEADER, MAX_FDS, MAX_PAYLOAD } from "./protocol.ts";

/** The kernel's own limit for one send: a longer list is never truncated without a flag. */
const KERNEL_MAX_FDS = 253;
const OUT = PAGE / 2;

/** The stream cannot be cut any further: the connection must end. */
export class FramingError extends Error {
  readonly code = "FRAMING";
  constructor(message: string) {
    super(message);
    this.name = "FramingError";
  }
}

export class ProxyStream {
  fd: number;
  readonly #memory = mapAnonymous(PAGE);
  readonly #in = new DataView(this.#memory.view(0, OUT));
  readonly #out = new DataView(this.#memory.view(OUT, OUT));
  readonly #receiver = new SocketReceiver(KERNEL_MAX_FDS);
  #have = 0;
  /** The message that `receive` completed. */
  type = 0;
  flags = 0;
  payload = new DataView(new ArrayBuffer(0));
  /** Its descriptors, at most MAX_FDS: whoever takes one empties the list of it. */
  readonly fds: number[] = [];
  /** It came with more descriptors than any message has; those are closed. */
  tooManyFds = false;

  /** @param fd the connected socket; closed with the stream */
  constructor(fd: number) {
    this.fd = fd;
  }

  /**
   * Ends the connection. The buffers stay for the next one: views made for each would pile up in a
   * worker whose event loop does not run (see `viewAt`).
   */
  disconnect(): void {
    this.dropFds();
    close(this.fd);
    this.fd = -1;
    this.#have = 0;
  }

  /** The next connection, after `disconnect`. */
  reconnect(fd: number): void {
    this.fd = fd;
  }

  /**
   * Takes what is there, until a message is whole.
   * @returns "message", "none" if more bytes are needed, "end" at the end of the stream
   * @throws FramingError, OsError if the connection is unusable
   */
  receive(): "message" | "none" | "end" {
    if (this.#have === 0) this.dropFds();
    for (;;) {
      const wanted = this.#wanted();
      if (this.#have === wanted) return this.#complete();
      const at = this.#memory.address + this.#have;
      const n = this.#receiver.receiveAt(this.fd, at, wanted - this.#have);
      if (n < 0) return "none";
      if (n === 0) return "end";
      this.#have += n;
      this.#keepFds();
    }
  }

  /** Bytes that the message has, as far as it is known. */
  #wanted(): number {
    if (this.#have < HEADER.SIZE) return HEADER.SIZE;
    const size = this.#in.getUint32(HEADER.size, true);
    if (size > MAX_PAYLOAD) {
      throw new FramingError(`a payload of ${size} bytes: no message has more than ${MAX_PAYLOAD}`);
    }
    return HEADER.SIZE + size;
  }

  #keepFds(): void {
    for (const fd of this.#receiver.fds) {
      if (this.fds.length < MAX_FDS) this.fds.push(fd);
      else {
        closePeer(fd);
        this.tooManyFds = true;
      }
    }
  }

  /**
   * The payload is copied: the buffer is free for the next message, and nobody changes it under us.
   */
  #complete(): "message" {
    this.type = this.#in.getUint32(HEADER.type, true);
    this.flags = this.#in.getUint32(HEADER.flags, true);
    this.payload = new DataView(this.#in.buffer.slice(HEADER.SIZE, this.#have));
    this.#have = 0;
    return "message";
  }

  /** Closes the descriptors that nobody took. */
  dropFds(): void {
    for (const fd of this.fds.splice(0)) closePeer(fd);
    this.tooManyFds = false;
  }

  /**
   * Sends one message whole; `fds` stay the caller's.
   * @throws FramingError if the peer does not read its replies
   */
  send(type: number, flags: number, payload: Uint8Array, fds: readonly number[] = []): void {
    const length = HEADER.SIZE + payload.length;
    this.#out.setUint32(HEADER.type, type, true);
    this.#out.setUint32(HEADER.flags, flags, true);
    this.#out.setUint32(HEADER.size, payload.length, true);
    new Uint8Array(this.#out.buffer).set(payload, HEADER.SIZE);
    const n = sendMessage(this.fd, this.#memory.address + OUT, length, fds);
    if (n !== length) throw new FramingError("the peer does not read what it is sent");
  }

  close(): void {
    if (this.fd >= 0) this.disconnect();
    this.#receiver.close();
    this.#memory.unmap();
  }
}

/**
 * The client side of vfio-user that a user-space guest driver needs. The NIC is in another process
 * (`bpfhv serve`), and this one acts as its machine. Writes are posted, as QEMU posts them.
 */
import { EPOLLIN, Epoll } from "../os/epoll.ts";
import { createEventFd, drainEventFd } from "../os/eventfd.ts";
import { close } from "../os/fd.ts";
import { type Mapping, mapAnonymous } from "../os/memory.ts";
import { connectUnix, SocketReceiver, sendMessage } from "../os/unix-socket.ts";
import {
  COMMAND,
  DMA_FLAG,
  DMA_MAP,
  FLAG,
  HEADER,
  IRQ,
  IRQ_SET,
  REGION,
  REGION_ACCESS,
  SET_IRQS,
  VERSION,
} from "../vfio-user/protocol.ts";
import type { NicTransport } from "./driver.ts";
import type { LocalMemory } from "./memory.ts";
import { GuestError } from "./ring.ts";

/** Timeout of one reply; QEMU gives up after as long. */
const ANSWER_MS = 5000;
const BUFFER = 65536;
/** Command register: memory space and bus master. */
const PCI_COMMAND = 0x04;
const MEMORY_AND_MASTER = 0x06;

export class VfioUserClient implements NicTransport {
  readonly #fd: number;
  readonly #receiver = new SocketReceiver();
  readonly #epoll = new Epoll(4);
  readonly #buffer: Mapping = mapAnonymous(2 * BUFFER);
  readonly #out: DataView;
  readonly #in: DataView;
  readonly #vectors: number[] = [];
  #id = 0;

  /**
   * Connects, shares the guest's memory, enables bus mastering and
   * passes one eventfd per vector to the server.
   * @throws OsError if no process listens; GuestError if a reply is wrong or missing
   */
  constructor(path: string, memory: LocalMemory, vectors: number) {
    this.#out = new DataView(this.#buffer.view(0, BUFFER));
    this.#in = new DataView(this.#buffer.view(BUFFER, BUFFER));
    this.#fd = connectUnix(path);
    try {
      this.#epoll.add(this.#fd, EPOLLIN, 0);
      this.#negotiate();
      for (const range of memory.ranges) this.#map(memory.fd, range);
      this.#writeConfig(PCI_COMMAND, MEMORY_AND_MASTER);
      for (let v = 0; v < vectors; v++) this.#listen(v);
    } catch (error) {
      this.close();
      throw error;
    }
  }

  read(bar: number, offset: number): number {
    this.#access(bar, offset, 4);
    this.#call(COMMAND.REGION_READ, REGION_ACCESS.SIZE);
    return this.#in.getUint32(HEADER.SIZE + REGION_ACCESS.data, true);
  }

  write(bar: number, offset: number, value: number): void {
    this.#access(bar, offset, 4);
    this.#out.setUint32(HEADER.SIZE + REGION_ACCESS.data, value, true);
    this.#send(COMMAND.REGION_WRITE, REGION_ACCESS.SIZE + 4, FLAG.noReply);
  }

  /** Returns the interrupts of a vector since the last call. */
  interrupts(vector: number): number {
    return drainEventFd(this.#vectors[vector]);
  }

  /** Closes the connection: the NIC resets itself. */
  close(): void {
    for (const fd of this.#vectors.splice(0)) close(fd);
    this.#epoll.close();
    close(this.#fd);
    this.#receiver.close();
    this.#buffer.unmap();
  }

  #negotiate(): void {
    const json = `${JSON.stringify({ capabilities: { max_msg_fds: 8 } })}\0`;
    this.#out.setUint32(HEADER.SIZE, 0, true);
    Buffer.from(json).forEach((byte, i) => {
      this.#out.setUint8(HEADER.SIZE + VERSION.json + i, byte);
    });
    this.#call(COMMAND.VERSION, VERSION.SIZE + json.length);
  }

  #map(fd: number, range: { address: number; size: number; fileOffset: number }): void {
    const at = HEADER.SIZE;
    this.#out.setUint32(at + DMA_MAP.argsz, DMA_MAP.SIZE, true);
    this.#out.setUint32(at + DMA_MAP.flags, DMA_FLAG.read | DMA_FLAG.write, true);
    this.#put64(at + DMA_MAP.offset, range.fileOffset);
    this.#put64(at + DMA_MAP.address, range.address);
    this.#put64(at + DMA_MAP.size, range.size);
    this.#call(COMMAND.DMA_MAP, DMA_MAP.SIZE, [fd]);
  }

  #writeConfig(offset: number, value: number): void {
    this.#access(REGION.config, offset, 2);
    this.#out.setUint16(HEADER.SIZE + REGION_ACCESS.data, value, true);
    this.#call(COMMAND.REGION_WRITE, REGION_ACCESS.SIZE + 2);
  }

  #listen(vector: number): void {
    const fd = createEventFd();
    this.#vectors.push(fd);
    const at = HEADER.SIZE;
    this.#out.setUint32(at + SET_IRQS.argsz, SET_IRQS.SIZE, true);
    this.#out.setUint32(at + SET_IRQS.flags, IRQ_SET.dataEventfd | IRQ_SET.trigger, true);
    this.#out.setUint32(at + SET_IRQS.index, IRQ.msix, true);
    this.#out.setUint32(at + SET_IRQS.start, vector, true);
    this.#out.setUint32(at + SET_IRQS.count, 1, true);
    this.#call(COMMAND.DEVICE_SET_IRQS, SET_IRQS.SIZE, [fd]);
  }

  #access(region: number, offset: number, count: number): void {
    this.#put64(HEADER.SIZE + REGION_ACCESS.offset, offset);
    this.#out.setUint32(HEADER.SIZE + REGION_ACCESS.region, region, true);
    this.#out.setUint32(HEADER.SIZE + REGION_ACCESS.count, count, true);
  }

  #put64(at: number, value: number): void {
    this.#out.setUint32(at, value % 2 ** 32, true);
    this.#out.setUint32(at + 4, Math.floor(value / 2 ** 32), true);
  }

  #send(command: number, payload: number, flags: number, fds?: readonly number[]): void {
    const length = HEADER.SIZE + payload;
    this.#id = (this.#id + 1) & 0xffff;
    this.#out.setUint16(HEADER.id, this.#id, true);
    this.#out.setUint16(HEADER.command, command, true);
    this.#out.setUint32(HEADER.size, length, true);
    this.#out.setUint32(HEADER.flags, flags, true);
    this.#out.setUint32(HEADER.errno, 0, true);
    const deadline = performance.now() + ANSWER_MS;
    // The socket is full: the server is behind with posted writes.
    while (sendMessage(this.#fd, this.#buffer.address, length, fds) < 0) {
      if (performance.now() > deadline) throw new GuestError("the server reads no messages");
      this.#epoll.wait(1);
    }
  }

  /** Sends a request and waits for its reply, which is then in `#in`. */
  #call(command: number, payload: number, fds?: readonly number[]): void {
    this.#send(command, payload, FLAG.request, fds);
    const deadline = performance.now() + ANSWER_MS;
    let have = 0;
    while (have < HEADER.SIZE || have < this.#in.getUint32(HEADER.size, true)) {
      const address = this.#buffer.address + BUFFER + have;
      const n = this.#receiver.receiveAt(this.#fd, address, BUFFER - have);
      if (n === 0) throw new GuestError("the server closed the connection");
      if (n > 0) have += n;
      else if (performance.now() > deadline) throw new GuestError(`request ${command}: no reply`);
      else this.#epoll.wait(100);
    }
    if (this.#in.getUint16(HEADER.id, true) !== this.#id)
      throw new GuestError("a reply with another request's id");
    if (this.#in.getUint32(HEADER.flags, true) & FLAG.error) {
      throw new GuestError(
        `request ${command} refused: errno ${this.#in.getUint32(HEADER.errno, true)}`,
      );
    }
  }
}

/** The messages of one client: each is checked, executed and answered. */
import { OK, type RegionTable } from "../memory/regions.ts";
import { EINVAL, EIO, ENOTSUP, ETIMEDOUT } from "../os/errors.ts";
import { closePeer } from "../os/peer-close.ts";
import { ClientMemory, mapRequest } from "./client-memory.ts";
import type { Counters } from "./counters.ts";
import { describeDevice, describeIrq, describeRegion, describeVersion } from "./describe.ts";
import { type MessageStream, NO_FDS } from "./framing.ts";
import { handleSetIrqs } from "./irqs.ts";
import type { PciFunction } from "./pci.ts";
import {
  COMMAND,
  DEVICE_INFO,
  DMA_UNMAP,
  FLAG,
  HEADER,
  IRQ,
  IRQ_INFO,
  isAccessSize,
  REGION,
  REGION_ACCESS,
  REGION_INFO,
  VERSION,
} from "./protocol.ts";
import { describeRefused } from "./refused-message.ts";
import type { ReplyWriter } from "./replies.ts";
import { isVersionRequest } from "./version-request.ts";

export interface SessionEvents {
  /** VERSION was accepted. */
  negotiated(): void;
  /** Tells whether the client may have given the current request up. */
  isLate(): boolean;
  /**
   * The current message has taken effect, and is answered next.
   * @param reply bytes of the answer; 0: it gets none
   * @param changed the state of server or device may have changed
   */
  handled(reply: number, changed: boolean): void;
  warn(code: string, message: string): void;
}

/** Requests that change nothing. */
const QUESTIONS: ReadonlySet<number> = new Set([
  ...[COMMAND.REGION_READ, COMMAND.DEVICE_GET_INFO],
  ...[COMMAND.DEVICE_GET_REGION_INFO, COMMAND.DEVICE_GET_IRQ_INFO],
]);

export class Session {
  readonly memory: ClientMemory;
  readonly #pci: PciFunction;
  readonly #stream: MessageStream;
  readonly #replies: ReplyWriter;
  readonly #counters: Counters;
  readonly #events: SessionEvents;
  /** The client's last refused message and its errno; "": none was refused. */
  lastRefusal = "";
  /** VERSION was accepted. */
  negotiated = false;
  /** Descriptors of the current message that nothing has taken yet. */
  #fds: readonly number[] = NO_FDS;
  /** Bytes of the current answer's payload. */
  #answer = 0;
  /** False: the error of the current message is an expected answer. */
  #isRefusal = true;

  constructor(
    pci: PciFunction,
    dma: RegionTable,
    stream: MessageStream,
    replies: ReplyWriter,
    counters: Counters,
    events: SessionEvents,
  ) {
    this.#pci = pci;
    this.memory = new ClientMemory(dma, pci.device);
    this.#stream = stream;
    this.#replies = replies;
    this.#counters = counters;
    this.#events = events;
  }

  /** Begins the session of the next client. */
  restart(): void {
    this.negotiated = false;
    this.lastRefusal = "";
  }

  /** Executes the stream's current message. @returns false if its answer could not be sent */
  handle(fd: number): boolean {
    const { data, at } = this.#stream;
    const command = data.getUint16(at + HEADER.command, true);
    const flags = data.getUint32(at + HEADER.flags, true);
    this.#counters.messages++;
    this.#fds = this.#stream.takeFds();
    this.#answer = 0;
    this.#isRefusal = true;
    const isReply = (flags & FLAG.typeMask) === FLAG.reply;
    const errno = isReply ? this.#refuseReply() : this.#guarded(command, flags);
    if (errno !== OK && this.#isRefusal) {
      this.lastRefusal = describeRefused(this.#stream, command, this.#fds.length, errno);
    }
    if (this.#fds.length > 0) this.#closeStray();
    const size = isReply || flags & FLAG.noReply ? 0 : this.#build(command, errno);
    this.#events.handled(size, this.#changes(command));
    return size === 0 || this.#replies.send(fd, size);
  }

  /** @returns bytes of the answer to the current message */
  #build(command: number, errno: number): number {
    const id = this.#stream.data.getUint16(this.#stream.at + HEADER.id, true);
    if (this.#answer === 0 || !this.#events.isLate()) {
      return this.#replies.build(id, command, errno, this.#answer);
    }
    this.#counters.lateAnswers++;
    return this.#replies.build(id, command, ETIMEDOUT, 0);
  }

  /** Reads and doorbells change nothing that a process which goes on would have to know. */
  #changes(command: number): boolean {
    if (QUESTIONS.has(command)) return false;
    if (command !== COMMAND.REGION_WRITE || this.#stream.size < HEADER.SIZE + REGION_ACCESS.SIZE) {
      return true;
    }
    const region = this.#u32(this.#stream.at + HEADER.SIZE + REGION_ACCESS.region);
    return region !== this.#pci.device.doorbells;
  }

  #refuseReply(): number {
    this.#counters.refusedReply++;
    return EINVAL;
  }

  #closeStray(): void {
    this.#counters.strayDescriptors += this.#fds.length;
    for (const fd of this.#fds) closePeer(fd);
    this.#fds = NO_FDS;
  }

  #takeFds(): readonly number[] {
    const fds = this.#fds;
    this.#fds = NO_FDS;
    return fds;
  }

  #guarded(command: number, flags: number): number {
    try {
      return this.#execute(command, flags);
    } catch (error) {
      this.#counters.deviceErrors++;
      this.#events.warn("device-error", String((error as Error)?.stack ?? error));
      return EIO;
    }
  }

  #execute(command: number, flags: number): number {
    const payload = this.#stream.size - HEADER.SIZE;
    const at = this.#stream.at + HEADER.SIZE;
    // Replies were sorted out before: other types are invalid, and only replies carry errors.
    if ((flags & FLAG.typeMask) !== FLAG.request || flags & FLAG.error) return this.#malformed();
    if (command === COMMAND.VERSION) return this.#version(at, payload);
    if (!this.negotiated) {
      this.#counters.refusedState++;
      return EINVAL;
    }
    switch (command) {
      case COMMAND.REGION_WRITE:
        if (flags & FLAG.noReply) this.#counters.postedWrites++;
        return this.#regionWrite(at, payload);
      case COMMAND.REGION_READ:
        return this.#regionRead(at, payload);
      case COMMAND.DMA_MAP:
        return this.#dmaMap(at, payload);
      case COMMAND.DMA_UNMAP:
        return this.#dmaUnmap(at, payload);
      case COMMAND.DEVICE_GET_INFO:
        return this.#deviceInfo(at, payload);
      case COMMAND.DEVICE_GET_REGION_INFO:
        return this.#regionInfo(at, payload);
      case COMMAND.DEVICE_GET_IRQ_INFO:
        return this.#irqInfo(at, payload);
      case COMMAND.DEVICE_SET_IRQS:
        return this.#setIrqs(at, payload);
      case COMMAND.DEVICE_RESET:
        return this.#reset(payload);
      default:
        this.#counters.refusedUnknown++;
        return ENOTSUP;
    }
  }

  #malformed(): number {
    this.#counters.refusedMalformed++;
    return EINVAL;
  }

  /** A field of the current message's payload. */
  #u32(offset: number): number {
    return this.#stream.data.getUint32(offset, true);
  }

  #version(at: number, payload: number): number {
    if (this.negotiated) {
      this.#counters.refusedState++;
      return EINVAL;
    }
    const { data, bytes } = this.#stream;
    if (!isVersionRequest(data, bytes, at, payload)) return this.#malformed();
    this.#answer = describeVersion(this.#replies, payload - VERSION.SIZE);
    this.negotiated = true;
    this.#events.negotiated();
    return OK;
  }

  #deviceInfo(at: number, payload: number): number {
    if (payload !== DEVICE_INFO.SIZE || this.#u32(at) < DEVICE_INFO.SIZE) return this.#malformed();
    this.#answer = describeDevice(this.#replies);
    return OK;
  }

  #put(offset: number, value: number): void {
    this.#replies.data.setUint32(HEADER.SIZE + offset, value, true);
  }

  #regionInfo(at: number, payload: number): number {
    if (payload < REGION_INFO.SIZE || this.#u32(at) < REGION_INFO.SIZE) return this.#malformed();
    const index = this.#u32(at + REGION_INFO.index);
    if (index >= REGION.COUNT) return this.#refusedRegion();
    this.#answer = describeRegion(this.#replies, index, this.#pci.regionSizes[index]!);
    return OK;
  }

  #refusedRegion(): number {
    this.#counters.refusedRegion++;
    return EINVAL;
  }

  #irqInfo(at: number, payload: number): number {
    if (payload !== IRQ_INFO.SIZE || this.#u32(at) < IRQ_INFO.SIZE) return this.#malformed();
    const index = this.#u32(at + IRQ_INFO.index);
    // EINVAL means that the device has no error interrupts; a count of 0 makes QEMU warn. QEMU asks
    // every device, so this counts as no refusal.
    if (index === IRQ.error) {
      this.#isRefusal = false;
      return EINVAL;
    }
    if (index >= IRQ.COUNT) {
      this.#counters.refusedIrq++;
      return EINVAL;
    }
    const { irqIndex, count } = this.#pci.vectors;
    this.#answer = describeIrq(this.#replies, index, index === irqIndex ? count : 0);
    return OK;
  }

  #setIrqs(at: number, payload: number): number {
    const request = this.#stream.data;
    const errno = handleSetIrqs(this.#pci.vectors, request, at, payload, this.#fds);
    if (errno === OK) this.#takeFds();
    else this.#counters.refusedIrq++;
    return errno;
  }

  #regionRead(at: number, payload: number): number {
    if (payload !== REGION_ACCESS.SIZE) return this.#malformed();
    const offset = this.#u32(at);
    const region = this.#u32(at + REGION_ACCESS.region);
    const count = this.#u32(at + REGION_ACCESS.count);
    if (!this.#pci.inside(region, offset, this.#u32(at + 4), count)) return this.#refusedRegion();
    const to = HEADER.SIZE + REGION_ACCESS.data;
    if (region === REGION.config) {
      this.#replies.bytes.set(this.#pci.config.bytes.subarray(offset, offset + count), to);
    } else if (isAccessSize(count)) {
      this.#pci.readBar(region, offset, count, this.#replies.data, to);
    } else return this.#refusedRegion();
    this.#counters.regionReads++;
    this.#echoAccess(offset, region, count);
    this.#answer = REGION_ACCESS.SIZE + count;
    return OK;
  }

  #echoAccess(offset: number, region: number, count: number): void {
    this.#put(0, offset);
    this.#put(4, 0);
    this.#put(REGION_ACCESS.region, region);
    this.#put(REGION_ACCESS.count, count);
  }

  #regionWrite(at: number, payload: number): number {
    if (payload < REGION_ACCESS.SIZE) return this.#malformed();
    const offset = this.#u32(at);
    const region = this.#u32(at + REGION_ACCESS.region);
    const count = this.#u32(at + REGION_ACCESS.count);
    if (payload - REGION_ACCESS.SIZE !== count) return this.#malformed();
    if (!this.#pci.inside(region, offset, this.#u32(at + 4), count)) return this.#refusedRegion();
    const from = at + REGION_ACCESS.data;
    if (region === REGION.config) {
      this.#pci.writeConfig(offset, count, this.#stream.bytes, from);
    } else if (isAccessSize(count)) {
      this.#pci.writeBar(region, offset, count, this.#stream.data, from);
    } else return this.#refusedRegion();
    this.#counters.regionWrites++;
    this.#echoAccess(offset, region, count);
    this.#answer = REGION_ACCESS.SIZE;
    return OK;
  }

  #dmaMap(at: number, payload: number): number {
    const request = mapRequest(this.#stream.data, at, payload, this.#fds.length);
    if (request === null) return this.#malformed();
    const errno = this.memory.map(request, this.#takeFds()[0] ?? -1);
    if (errno !== OK) this.#counters.refusedDma++;
    return errno;
  }

  #dmaUnmap(at: number, payload: number): number {
    if (payload !== DMA_UNMAP.SIZE || this.#u32(at) < DMA_UNMAP.SIZE) return this.#malformed();
    const { data, bytes } = this.#stream;
    const errno = this.memory.unmap(data, at);
    if (errno !== OK) {
      this.#counters.refusedDma++;
      return errno;
    }
    this.#replies.bytes.set(bytes.subarray(at, at + DMA_UNMAP.SIZE), HEADER.SIZE);
    this.#answer = DMA_UNMAP.SIZE;
    return OK;
  }

  #reset(payload: number): number {
    if (payload !== 0) return this.#malformed();
    this.#pci.reset();
    return OK;
  }
}

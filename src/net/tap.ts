/**
 * The TAP port: one system call per packet, from and into guest memory without a copy.
 *
 * With a header, a virtio_net_hdr of 12 bytes precedes every packet, as an iovec of its own.
 * Received packets may need the offloads that the guest negotiated; packets that the kernel queued
 * earlier and that need others are dropped.
 *
 * The kernel refuses a packet with EIO while the interface is down and with EINVAL if it is not an
 * Ethernet frame or its header contradicts it: such a packet is dropped and counted. EBADFD means
 * that the interface was removed.
 */
import {
  allowsMetadata,
  type Batch,
  FILTERED_OUT,
  GSO_NONE,
  headerFlags,
  headerGsoType,
} from "../memory/index.ts";
import { EAGAIN, EINTR, EINVAL, EIO, errnoName, OsError } from "../os/errors.ts";
import { close } from "../os/fd.ts";
import { type Mapping, mapAnonymous } from "../os/memory.ts";
import { adoptTap, openTap, setTapOffloads, type Tap } from "../os/tap.ts";
import { readv, write, writev } from "../os/vector-io.ts";
import { BasePort } from "./base.ts";
import type { PortKind } from "./port.ts";
import { newProgress, PROGRESS } from "./progress.ts";
import { optional, PortSpecError, parseOptions } from "./words.ts";

/** "File descriptor in bad state"; Node's table of error numbers lacks it. */
const EBADFD = 77;

const REASONS = new Map([
  [EIO, "the interface is down (EIO); ip link set dev NAME up"],
  [EINVAL, "not an Ethernet frame, or its offload header contradicts it (EINVAL)"],
  [EBADFD, "the interface was removed (EBADFD)"],
]);

const HEADER = 12;
/** struct iovec: address u64, length u64. */
const IOVEC = 16;
const IOVEC_WORDS = IOVEC >> 2;
/** Segments of the largest batch. */
const MAX_SEGMENTS = 4096;
/** Entries of one call (UIO_MAXIOV of the kernel); with more it fails. */
const IOV_MAX = 1024;
/** Entry of a packet of one segment: the header is before it, a spare byte after it. */
const SINGLE = MAX_SEGMENTS + 3;
/**
 * The table of struct iovec: an entry before and one after those of the segments, and three for
 * single segments. After it a header, then the spare byte.
 */
const TABLE_BYTES = (SINGLE + 2) * IOVEC;
const HEADER_AT = TABLE_BYTES;
const OVERFLOW_AT = HEADER_AT + 16;

export class TapPort extends BasePort {
  readonly name: string;
  override readonly fd: number;
  progress = newProgress();
  readonly #tap: Tap;
  readonly #native: Mapping = mapAnonymous(OVERFLOW_AT + 16);
  /** Segment s of a batch is entry s + 1; its packet's header takes the entry before the first. */
  readonly #table: Uint32Array;
  readonly #header: Uint16Array;
  /** Offloads that the kernel was asked for, and those that it granted. */
  #taken = -1;
  #granted = 0;
  readonly #toldSending = new Set<number>();
  readonly #toldReceiving = new Set<number>();

  /** @param tap is this port's from here on */
  constructor(tap: Tap) {
    super();
    this.#tap = tap;
    this.name = `tap:${this.#tap.name}`;
    this.fd = this.#tap.fd;
    this.#table = new Uint32Array(this.#native.view(0, TABLE_BYTES));
    this.#header = new Uint16Array(this.#native.view(HEADER_AT, HEADER));
    this.#entry(SINGLE - 1, this.#native.address + HEADER_AT, this.#tap.vnetHeader);
    this.#entry(SINGLE + 1, this.#native.address + OVERFLOW_AT, 1);
  }

  override setReceiveOffloads(offloads: number, accepted = offloads): void {
    // What the kernel queued for offloads of before is what it had been granted.
    const before = this.offloads & accepted & ~offloads;
    try {
      if (offloads !== this.#taken) this.#granted = setTapOffloads(this.#tap, offloads);
      this.#taken = offloads;
      this.offloads = this.#granted | before;
    } catch (error) {
      if (!(error instanceof OsError)) throw error;
      this.#refusedOffloads(error);
    }
  }

  /** Reports the error and continues without offloads: packets that need one are dropped. */
  #refusedOffloads({ errno, message }: OsError): void {
    this.offloads = 0;
    this.#granted = 0;
    this.#taken = -1;
    if (errno === EBADFD) this.linkUp = false;
    this.notice = `${this.name}: offloads cannot be set: ${REASONS.get(errno) ?? message}`;
  }

  send(batch: Batch): number {
    this.sendBlocked = false;
    const vectored = batch.metadata || batch.segments !== batch.packets;
    if (vectored) this.#layOut(batch);
    else if (this.#tap.vnetHeader !== 0) this.#header.fill(0);
    const { progress } = this;
    for (let p = 0; p < batch.packets; p++) {
      progress[PROGRESS.sent]++;
      const result = vectored ? this.#sendVector(batch, p) : this.#sendSingle(batch, p);
      progress[PROGRESS.sent]++;
      // The kernel takes whole frames only: a shorter result is an error.
      if (result === batch.length[p] + this.#tap.vnetHeader) continue;
      if (result === -EAGAIN || result === -EINTR) {
        progress[PROGRESS.sent] -= 2;
        this.sendBlocked = true;
        return p;
      }
      if (result === -EBADFD) this.linkUp = false;
      this.#note("sending", result);
      this.dropped++;
    }
    return batch.packets;
  }

  receive(batch: Batch): void {
    if (batch.spanning) this.#receiveVectors(batch);
    else if (this.#tap.vnetHeader !== 0) this.#receiveHeaders(batch);
    else this.#receiveSingles(batch);
  }

  /** With headers, into one segment each. */
  #receiveHeaders(batch: Batch): void {
    const header = this.#tap.vnetHeader;
    const entries = this.#native.address + (SINGLE - 1) * IOVEC;
    for (let left = batch.maxPackets; left > 0; left--) {
      const room = batch.nextBuffer();
      if (room === 0) break;
      this.#entry(SINGLE, batch.address[batch.used], room);
      const result = this.#read(entries, 3);
      if (result <= 0) return this.#nothing(result);
      this.#received(batch, result - header, room);
    }
    this.receiveDrained = false;
  }

  /** Without headers, into one segment each: some 300 ns less per packet than `#receiveVectors`. */
  #receiveSingles(batch: Batch): void {
    const entries = this.#native.address + SINGLE * IOVEC;
    let s = 0;
    for (let left = batch.maxPackets; left > 0; left--) {
      const room = batch.nextBuffer();
      if (room === 0) break;
      this.#entry(SINGLE, batch.address[s], room);
      const result = this.#read(entries, 2);
      if (result <= 0) return this.#nothing(result);
      if (result > room) this.tooLong++;
      else if (batch.endReceived(result) !== FILTERED_OUT) s++;
    }
    this.receiveDrained = false;
  }

  #receiveVectors(batch: Batch): void {
    this.#layOut(batch);
    const header = this.#tap.vnetHeader;
    // Bounded also while every packet is dropped: the loop has other work.
    for (let left = batch.maxPackets; left > 0; left--) {
      const most = batch.nextBuffer();
      if (most === 0) break;
      const free = this.#freeVector(batch, most);
      const first = batch.used + (header === 0 ? 1 : 0);
      if (header !== 0) this.#entry(first, this.#native.address + HEADER_AT, header);
      const result = this.#read(
        this.#native.address + first * IOVEC,
        free.entries + batch.used + 1 - first,
      );
      if (result <= 0) return this.#nothing(result);
      this.#received(batch, result - header, free.bytes);
    }
    this.receiveDrained = false;
  }

  #read(entries: number, count: number): number {
    const { progress } = this;
    progress[PROGRESS.taken]++;
    const result = readv(this.fd, entries, count);
    if (result > 0) progress[PROGRESS.taken]++;
    else progress[PROGRESS.taken]--;
    return result;
  }

  override close(): void {
    close(this.fd);
    this.#native.unmap();
  }

  /**
   * Handles a failed read. EAGAIN and EINTR: no packets; EBADFD: the interface was removed; any
   * other error: the kernel lost a frame. More may fail, so the next read waits for the next turn.
   */
  #nothing(result: number): void {
    this.receiveDrained = true;
    if (result === -EAGAIN || result === -EINTR || result === 0) return;
    if (result === -EBADFD) this.linkUp = false;
    else {
      this.#note("receiving", result);
      this.failures++;
      this.dropped++;
    }
  }

  /** Reports the first of each error; `dropped` counts all. @param result -errno, or bytes */
  #note(what: "sending" | "receiving", result: number): void {
    const told = what === "sending" ? this.#toldSending : this.#toldReceiving;
    const number = Math.max(-result, 0);
    if (told.has(number)) return;
    told.add(number);
    const why = number === 0 ? "the frame was cut" : (REASONS.get(number) ?? errnoName(number));
    this.notice = `${this.name}: ${what} fails, packets are lost: ${why}`;
  }

  /** Scratch of `#freeVector`. */
  readonly #free = { entries: 0, bytes: 0 };

  /**
   * Counts the entries for the next packet, with room for one byte more than the longest packet:
   * readv truncates silently, and a packet that fills the spare byte is oversized. The spare byte
   * is the next segment's first, or at the end of the batch one of this port.
   */
  #freeVector(batch: Batch, most: number): { entries: number; bytes: number } {
    let bytes = 0;
    let s = batch.used;
    // One entry is left for a header, and one for the spare byte.
    const end = Math.min(batch.segments, batch.used + IOV_MAX - 2);
    for (; s < end && bytes <= most; s++) bytes += batch.size[s];
    this.#free.bytes = Math.min(bytes, most);
    this.#free.entries = s - batch.used;
    if (bytes <= most) {
      if (s === batch.segments) this.#entry(s + 1, this.#native.address + OVERFLOW_AT, 1);
      this.#free.entries++;
    }
    return this.#free;
  }

  #received(batch: Batch, length: number, room: number): void {
    if (length > room) {
      this.tooLong++;
      return;
    }
    const header = this.#header;
    const flags = headerFlags(header);
    const gsoType = headerGsoType(header);
    const plain = this.#tap.vnetHeader === 0 || (flags === 0 && gsoType === GSO_NONE);
    if (length <= 0 || !(plain || allowsMetadata(this.offloads, flags, gsoType))) {
      this.dropped++;
      return;
    }
    const p = batch.endReceived(length);
    if (p === FILTERED_OUT) return;
    if (plain) batch.clearMetadata(p);
    else batch.readHeader(p, header);
  }

  /** A packet of one segment, with a header that is all zeros. */
  #sendSingle(batch: Batch, p: number): number {
    const header = this.#tap.vnetHeader;
    if (header === 0) return write(this.fd, batch.address[p], batch.length[p]);
    this.#entry(SINGLE, batch.address[p], batch.length[p]);
    return writev(this.fd, this.#native.address + (SINGLE - 1) * IOVEC, 2);
  }

  #sendVector(batch: Batch, p: number): number {
    const first = batch.first[p];
    const count = batch.first[p + 1] - first;
    if (this.#tap.vnetHeader === 0) {
      return writev(this.fd, this.#native.address + (first + 1) * IOVEC, count);
    }
    if (batch.metadata) batch.writeHeader(p, this.#header);
    else this.#header.fill(0);
    this.#entry(first, this.#native.address + HEADER_AT, this.#tap.vnetHeader);
    return writev(this.fd, this.#native.address + first * IOVEC, count + 1);
  }

  /** Writes the batch's segments into the table. */
  #layOut(batch: Batch): void {
    for (let s = 0; s < batch.segments; s++) this.#entry(s + 1, batch.address[s], batch.size[s]);
  }

  #entry(index: number, address: number, size: number): void {
    const at = index * IOVEC_WORDS;
    const table = this.#table;
    table[at] = address;
    table[at + 1] = address / 4294967296;
    table[at + 2] = size;
  }
}

export interface TapSpec {
  readonly kind: "tap";
  readonly tap: string;
  readonly netns?: string;
  readonly create: boolean;
}

export const tapPort: PortKind<TapSpec> = {
  name: "tap",
  usage: "tap:NAME[,netns=NAMESPACE][,create]",
  parse([tap = "", ...words]) {
    if (tap === "" || tap.includes("=")) {
      throw new PortSpecError('net "tap": say which interface, as in tap:tap0');
    }
    const rest = words.filter((word) => word !== "create");
    const options = parseOptions("tap", rest, ["netns"], ["create"]);
    const create = rest.length < words.length;
    return { kind: "tap", tap, create, ...optional("netns", options.get("netns")) };
  },
  open({ tap, netns, create }, { multiQueue, metadata }) {
    const vnetHeader = metadata ? HEADER : 0;
    const options = { name: tap, vnetHeader, offloads: 0, multiQueue, create } as const;
    return new TapPort(openTap({ ...options, ...optional("netns", netns) }));
  },
  continues: "by descriptor",
  adopt: ({ tap }, { metadata }, fd) =>
    new TapPort(adoptTap(fd, { name: tap, vnetHeader: metadata ? HEADER : 0, offloads: 0 })),
};

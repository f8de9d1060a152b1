/**
 * Packets that a port queued for a guest's earlier set, and that need offloads which the next set
 * lacks: checksums are stored and large packets are segmented here, until the port has no more.
 */
import { DROP_PORT, DROP_TOO_LONG, type QueueCounters, SOFTWARE } from "../memory/counters.ts";
import {
  allowsMetadata,
  Batch,
  GSO_NONE,
  MAX_GSO_PACKET,
  NEEDS_CSUM,
  receiveFrom,
} from "../memory/index.ts";
import { type Mapping, mapAnonymous } from "../os/memory.ts";
import type { Port } from "./port.ts";
import { finishChecksum, Segmenter } from "./segmentation.ts";

/** A segment is not longer than its packet. */
const ROOM = (MAX_GSO_PACKET + 7) & ~7;

export class SoftwareOffloads {
  /** OFFLOAD_* that the port may have been told to bring. */
  older: number;
  readonly #native: Mapping = mapAnonymous(2 * ROOM);
  readonly #packet = new Uint8Array(this.#native.view(0, ROOM));
  readonly #segment = new Uint8Array(this.#native.view(ROOM, ROOM));
  /** One packet, as it came from the port. */
  readonly #in = new Batch(1, 1);
  readonly #segmenter = new Segmenter();
  /** Segments of that packet, and how many of them the guest has. */
  #segments = 0;
  #given = 0;
  /** The packet waits, whole, for a buffer. */
  #whole = false;
  #drained = false;

  constructor(older: number) {
    this.older = older;
  }

  /** Another set follows while packets wait: the port may have such for either. */
  extend(older: number): void {
    this.older |= older;
    this.#drained = false;
  }

  /** The port has no packets of before any more, and the guest has those that it had. */
  get over(): boolean {
    return this.#drained && !this.waits;
  }

  /** A packet waits for the guest's buffers. */
  get waits(): boolean {
    return this.#whole || this.#given < this.#segments;
  }

  /** As `Port.receive`. @param offloads OFFLOAD_* that the guest takes */
  receive(port: Port, batch: Batch, offloads: number, counters: QueueCounters): void {
    for (let left = batch.maxPackets; left > 0 && batch.nextBuffer() > 0; left--) {
      if (!this.waits) {
        const before = this.#in;
        before.clear();
        before.metadata = true;
        before.urgent = batch.urgent;
        before.addSegment(this.#native.address, ROOM);
        port.receive(before);
        if (before.packets === 0) {
          this.#drained = port.receiveDrained;
          return;
        }
        this.#segments = 0;
        this.#given = 0;
        this.#whole = true;
      }
      // One that waited may have been for a set of before.
      if (this.#whole) this.#finish(batch.metadata ? offloads : 0, counters);
      this.#give(batch, counters);
    }
  }

  #finish(offloads: number, counters: QueueCounters): void {
    const from = this.#in;
    const [length, flags, gsoType] = [from.length[0], from.flags[0], from.gsoType[0]];
    if (allowsMetadata(offloads, flags, gsoType)) return;
    counters[SOFTWARE]++;
    if (gsoType === GSO_NONE) {
      finishChecksum(this.#packet, 0, length, from.csumStart[0], from.csumOffset[0]);
      from.clearMetadata(0);
      return;
    }
    this.#whole = false;
    this.#segments = flags & NEEDS_CSUM ? this.#segmenter.begin(this.#packet, length, from, 0) : 0;
    if (this.#segments === 0) counters[DROP_PORT]++;
  }

  /** As many segments as the guest has buffers for, or the packet. */
  #give(batch: Batch, counters: QueueCounters): void {
    const { address } = this.#native;
    if (this.#whole) {
      const p = batch.packets;
      if (!receiveFrom(batch, address, this.#in.length[0])) counters[DROP_TOO_LONG]++;
      else if (batch.packets > p && batch.metadata) batch.copyMetadata(p, this.#in, 0);
      this.#whole = false;
    }
    while (this.#given < this.#segments && batch.nextBuffer() > 0) {
      const length = this.#segmenter.write(this.#given++, this.#segment, 0);
      if (!receiveFrom(batch, address + ROOM, length)) counters[DROP_TOO_LONG]++;
    }
  }

  /** Call it when it is over. */
  close(): void {
    this.#native.unmap();
  }
}

/**
 * Receive side scaling: the guest's table chooses the queue of each received packet by its flow's
 * hash. A port knows a packet's queue only after it was read, so it is read into an area of the
 * host, and copied from there into the ring that it belongs to.
 *
 * If that ring has no buffers, its packets wait, and the port that they came from is not read:
 * nothing is dropped, but packets behind them wait, too.
 */
import { Batch, type FlowHash, MAX_GSO_PACKET } from "../memory/index.ts";
import { mapAnonymous, PAGE } from "../os/memory.ts";

/** What the guest wants, as the engine needs it. */
export interface Steering {
  readonly hash: FlowHash;
  /** Queue by the low bits of the hash, a power of two of them; null: the port chooses. */
  readonly table: Uint8Array | null;
  /** Packets bring their hash, if the ring format has room for it. */
  readonly report: boolean;
}

/** Bytes for a packet: the longest, and one more, by which a port notices a longer one. */
const ROOM = Math.ceil((MAX_GSO_PACKET + 1) / PAGE) * PAGE;
const TAKEN = 0xff;

/** A receiver, as another one needs it. */
export interface StagedReceiver {
  receiveInto(batch: Batch): void;
  /** Takes the packets of this queue. @returns packets that are in its ring */
  takeStaged(staging: Staging, queue: number): number;
}

/** Packets that a port has received and that are not yet in their rings. */
export class Staging {
  readonly batch: Batch;
  /** The ring that each packet belongs to; TAKEN. */
  readonly #queue: Uint8Array;
  /** Where to look for the first packet of each queue. */
  readonly #from: Int32Array;
  /** Packets that are not yet taken. */
  left = 0;

  /** Pages of the area take memory once a packet is in them. */
  constructor(most: number, queues: number) {
    this.batch = new Batch(most, most);
    this.#queue = new Uint8Array(most);
    this.#from = new Int32Array(queues);
    const { address } = mapAnonymous(most * ROOM);
    for (let i = 0; i < most; i++) {
      this.batch.address[i] = address + i * ROOM;
      this.batch.size[i] = MAX_GSO_PACKET;
    }
  }

  /** Lays out room for packets. All that were there must be taken. */
  begin(most: number): Batch {
    this.batch.clear();
    this.batch.metadata = true;
    this.batch.segments = Math.min(most, this.batch.maxSegments);
    return this.batch;
  }

  /** Chooses the queues of the packets that were received. @param table of a power of two */
  sort(table: Uint8Array): void {
    const { batch } = this;
    const mask = table.length - 1;
    for (let p = 0; p < batch.packets; p++) this.#queue[p] = table[batch.hash[p] & mask];
    this.#from.fill(0);
    this.left = batch.packets;
  }

  /** The first packet that is left of a queue; -1: there is none. */
  first(queue: number): number {
    const { packets } = this.batch;
    let p = this.#from[queue];
    while (p < packets && this.#queue[p] !== queue) p++;
    this.#from[queue] = p;
    return p === packets ? -1 : p;
  }

  /** Packets that are left of a queue. */
  count(queue: number): number {
    let n = 0;
    for (let p = this.#from[queue]; p < this.batch.packets; p++) if (this.#queue[p] === queue) n++;
    return n;
  }

  /** @returns the packets of the queue that were left */
  takeAll(queue: number): number {
    let n = 0;
    for (let p = this.first(queue); p >= 0; p = this.first(queue), n++) this.take(p);
    return n;
  }

  take(p: number): void {
    this.#queue[p] = TAKEN;
    this.left--;
  }

  /** Forgets all packets. @returns how many */
  discard(): number {
    const { left } = this;
    this.left = 0;
    this.batch.packets = 0;
    return left;
  }
}

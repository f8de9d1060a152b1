/**
 * The receiving half of a queue pair: moves packets from its port into its ring, or, while the
 * guest's table chooses the queue of each packet, into those of all pairs.
 */
import type { RxRing } from "../devices/format.ts";
import {
  DROP_PORT,
  DROP_STOPPED,
  DROP_TOO_LONG,
  FILTERED,
  NO_BUFFERS,
} from "../memory/counters.ts";
import {
  allowsMetadata,
  type Batch,
  copyReceived,
  FILTERED_OUT,
  GSO_NONE,
  type ReceiveFilter,
} from "../memory/index.ts";
import type { Port } from "../net/port.ts";
import { ANYWHERE, PROGRESS } from "../net/progress.ts";
import { SoftwareOffloads } from "../net/software-offloads.ts";
import { Coalescer } from "./coalescer.ts";
import { brokenDescriptors, countMoved } from "./moved.ts";
import type { RxQueue } from "./queue.ts";
import { SteeredReceive } from "./steered-receive.ts";
import type { Staging, Steering } from "./steering.ts";

/** Packets per direction and turn. More would delay the other direction and the control socket. */
export const BUDGET = 64;

/** Of a ring's position: what is left is never ANYWHERE. */
const POSITION = 0x7fffffff;

/** First offer of buffers: most turns receive fewer packets; each buffer costs a translation. */
const FIRST_OFFER = 4;

export class Receiver {
  readonly queue: RxQueue;
  readonly coalescer = new Coalescer();
  /** There were packets and the guest had no buffers. */
  starved = false;
  /** A limit holds packets back, and only time ends that. */
  held = false;
  /** OFFLOAD_* that packets may need of the guest. */
  offloads = 0;
  readonly #owner: { readonly port: Port; readonly progress: Int32Array };
  readonly #batch: Batch;
  readonly #interrupt: () => void;
  #interruptDue = false;
  #software: SoftwareOffloads | null = null;
  /** null until the guest first had a table. */
  #steered: SteeredReceive | null = null;

  /**
   * @param owner has the current port
   * @param batch of the owner, which no other call is in the middle of using
   */
  constructor(
    owner: { readonly port: Port; readonly progress: Int32Array; readonly rx: RxQueue },
    batch: Batch,
    interrupt: () => void,
  ) {
    this.#owner = owner;
    this.queue = owner.rx;
    this.#batch = batch;
    this.#interrupt = interrupt;
  }

  get port(): Port {
    return this.#owner.port;
  }

  /** Port to guest. @returns packets moved. */
  fill(): number {
    const { queue, port } = this;
    const rx = queue.ring;
    if (this.coalescer.holds && this.coalescer.expired()) this.interruptIfWanted();
    if (this.held) this.held = port.receiveHeldMs > 0;
    if (rx === null || queue.backOff.leftMs > 0) return 0;
    const steered = this.#steered?.active ? this.#steered : null;
    // Packets that were received before may find buffers meanwhile.
    const reads = !this.held || this.#batch.urgent;
    if (!reads && steered?.ready !== false) return 0;
    this.#interruptDue = false;
    let total = 0;
    for (let few = FIRST_OFFER; ; few = BUDGET) {
      const most = Math.min(few, BUDGET - total);
      const packets = steered === null ? this.#fillOwn(rx, most) : this.#fillAll(steered, most);
      total += packets;
      const drained = port.receiveDrained && this.#software?.waits !== true;
      if (packets === 0 || drained || total >= BUDGET) break;
    }
    if (steered === null) this.#endReceive(total);
    return total;
  }

  #endReceive(packets: number): void {
    const { counters, backOff } = this.queue;
    this.coalescer.completed(packets);
    if (this.#interruptDue && this.coalescer.wanted()) this.#interrupt();
    // A guest without buffers must take packets before more can come.
    if (this.starved && this.coalescer.release()) this.interruptIfWanted();
    backOff.polled(brokenDescriptors(counters) + this.port.failures, packets);
  }

  /** Offers `most` buffers to the port and completes the packets it received. @returns packets */
  #fillOwn(rx: RxRing, most: number): number {
    if (!this.#offer(rx, most)) return 0;
    const { progress } = this.#owner;
    progress[PROGRESS.takenFrom] = rx.save() & POSITION;
    this.receiveInto(this.#batch);
    const packets = this.#deliver(rx);
    progress[PROGRESS.taken] = 0;
    return packets;
  }

  #fillAll(steered: SteeredReceive, most: number): number {
    const { progress } = this.#owner;
    progress[PROGRESS.takenFrom] = ANYWHERE;
    const packets = steered.fill(most);
    progress[PROGRESS.taken] = 2 * steered.left;
    return packets;
  }

  /** Takes up to `most` buffers from the ring. @returns false if there are none */
  #offer(rx: RxRing, most: number): boolean {
    const batch = this.#batch;
    batch.clear();
    const some = rx.offer(batch, most) > 0;
    if (!some) {
      if (rx.deliver(batch)) this.#interruptDue = true;
      if (!this.starved && !rx.broken) this.queue.counters[NO_BUFFERS]++;
    }
    this.starved = !some;
    return some;
  }

  /** Gives the guest what is in the batch. @returns packets */
  #deliver(rx: RxRing): number {
    const batch = this.#batch;
    if (rx.deliver(batch)) this.#interruptDue = true;
    countMoved(this.queue.counters, batch, batch.packets);
    return batch.packets;
  }

  /** Receives from the port, and counts what it could not bring. */
  receiveInto(batch: Batch): void {
    const { port } = this;
    const { counters } = this.queue;
    const { dropped, tooLong } = port;
    if (this.#software === null) port.receive(batch);
    else this.#receiveOlder(this.#software, batch);
    this.held = port.receiveHeldMs > 0;
    if (batch.filtered > 0) counters[FILTERED] += batch.filtered;
    if (port.dropped !== dropped) counters[DROP_PORT] += port.dropped - dropped;
    if (port.tooLong !== tooLong) counters[DROP_TOO_LONG] += port.tooLong - tooLong;
  }

  /**
   * The guest's next set lacks offloads that packets in the port may need: these are done here.
   * @param offloads OFFLOAD_* of the set before
   */
  finishOlder(offloads: number): void {
    // It goes on if it holds packets from an earlier set.
    if (this.#software === null) this.#software = new SoftwareOffloads(offloads);
    else this.#software.extend(offloads);
  }

  /** OFFLOAD_* that packets in the port may need although the guest does not take them. */
  get olderOffloads(): number {
    return this.#software?.older ?? 0;
  }

  #receiveOlder(software: SoftwareOffloads, batch: Batch): void {
    const { port, offloads } = this;
    software.receive(port, batch, offloads, this.queue.counters);
    if (!software.over) return;
    software.close();
    this.#software = null;
    port.setReceiveOffloads(offloads);
  }

  /** Takes the packets of this queue that a pair has received. @returns packets */
  takeStaged(staging: Staging, queue: number): number {
    const { ring } = this.queue;
    if (ring === null || this.#backingOff) return 0;
    this.#interruptDue = false;
    let moved = 0;
    for (let p = staging.first(queue); p >= 0; ) {
      if (!this.#offer(ring, staging.count(queue))) break;
      const before = p;
      for (; p >= 0 && this.#batch.nextBuffer() > 0; p = staging.first(queue)) {
        this.#takeOne(staging.batch, p);
        staging.take(p);
      }
      moved += this.#deliver(ring);
      if (p === before) break;
    }
    // The poll may have found that out. Other queues must not wait for it.
    if (ring.broken) this.queue.counters[DROP_STOPPED] += staging.takeAll(queue);
    this.#endReceive(moved);
    return moved;
  }

  #takeOne(from: Batch, q: number): void {
    const batch = this.#batch;
    const { counters } = this.queue;
    const [length, flags, gsoType] = [from.length[q], from.flags[q], from.gsoType[q]];
    const plain = flags === 0 && gsoType === GSO_NONE;
    // The ring may be of a later set than the port's offloads.
    const able = plain || (batch.metadata && allowsMetadata(this.offloads, flags, gsoType));
    if (length > batch.nextBuffer()) counters[DROP_TOO_LONG]++;
    else if (!able) counters[DROP_PORT]++;
    else {
      const p = copyReceived(batch, from.address[from.first[q]], length);
      if (p !== FILTERED_OUT) batch.copyMetadata(p, from, q);
    }
  }

  /**
   * Sets which received packets the guest gets, null: all, and on which queues, null: as the port
   * has them.
   * @param pairs the NIC's
   */
  configure(
    filter: ReceiveFilter | null,
    steering: Steering | null,
    pairs: readonly { readonly receiver: Receiver }[],
  ): void {
    const batch = this.#batch;
    const table = steering?.table ?? null;
    if (table !== null)
      this.#steered ??= new SteeredReceive(
        this,
        pairs.map((pair) => pair.receiver),
        BUDGET,
      );
    if (this.#steered !== null) {
      this.#steered.set(table === null ? null : steering, filter);
      // After a reset: what was received for the driver before is not for the next one.
      if (table === null && this.queue.ring === null) {
        this.queue.counters[DROP_STOPPED] += this.#steered.discard();
      }
    }
    batch.filter = table === null ? filter : null;
    batch.flowHash = table === null ? (steering?.hash ?? null) : null;
    batch.hashed = steering?.report ?? false;
  }

  /** The port may be read: the ring is not out of buffers, or, steered, no packet waits for one. */
  get ready(): boolean {
    const { ring } = this.queue;
    if (ring === null || this.held || this.#backingOff) return false;
    return this.#steered?.active ? this.#steered.ready : !ring.broken && !this.starved;
  }

  /** Limits hold nothing back. */
  setUrgent(urgent: boolean): void {
    this.#batch.urgent = urgent;
    this.#steered?.setUrgent(urgent);
  }

  get #backingOff(): boolean {
    return this.queue.backOff.leftMs > 0;
  }

  /** The guest may have taken the packets meanwhile. */
  interruptIfWanted(): void {
    if (this.queue.ring?.interruptOverdue()) this.#interrupt();
  }
}

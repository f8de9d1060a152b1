/**
 * One queue pair between a device and a port: a packet's way through the host.
 *
 *     out:  ring --gather--> batch --port.send--> outside,     then consume: slots back, interrupt?
 *     in:   ring --offer---> batch <-port.receive-- outside,   then deliver: slots back; interrupt?
 */

import type { RxRing, TxRing } from "../devices/format.ts";
import {
  BATCHES,
  BYTES,
  DROP_BAD_ADDRESS,
  DROP_BAD_CHAIN,
  DROP_BAD_CHECKSUM,
  DROP_BAD_LENGTH,
  DROP_BAD_SEGMENTATION,
  DROP_PORT,
  DROP_TOO_LONG,
  INTERRUPTS,
  KICKS,
  NO_BUFFERS,
  newQueueCounters,
  PACKETS,
  type QueueCounters,
} from "../memory/counters.ts";
import { Batch } from "../memory/index.ts";
import type { Port } from "../net/port.ts";
import { Rest } from "./rest.ts";

/** Packets per direction and turn. More would make the other direction and the control wait. */
export const BUDGET = 64;

/** Buffers laid out at first: a port has mostly less, and each costs a look into guest memory. */
const FIRST_OFFER = 4;

/** Segments of a batch: BUDGET packets as a guest's stack makes them, and any single one. */
const MAX_SEGMENTS = 20 * BUDGET;

export class QueuePair {
  rx: RxRing | null = null;
  tx: TxRing | null = null;
  port: Port;
  readonly rxCounters: QueueCounters;
  readonly txCounters: QueueCounters;
  /**
   * The port had packets, the guest no buffers: until it publishes some, the port is not looked at.
   */
  rxStarved = false;
  /** The port would have blocked: until it is writable, the transmit ring is not looked at. */
  txBlocked = false;
  #interruptDue = false;
  readonly #rxRest = new Rest();
  readonly #txRest = new Rest();
  readonly #batch = new Batch(BUDGET, MAX_SEGMENTS);
  #receiveOffloads = 0;
  readonly #rxVector: number;
  readonly #txVector: number;
  readonly #fire: (vector: number) => void;

  constructor(options: {
    port: Port;
    rxVector: number;
    txVector: number;
    fire: (vector: number) => void;
    rxCounters?: QueueCounters;
    txCounters?: QueueCounters;
  }) {
    this.port = options.port;
    this.#rxVector = options.rxVector;
    this.#txVector = options.txVector;
    this.#fire = options.fire;
    this.rxCounters = options.rxCounters ?? newQueueCounters();
    this.txCounters = options.txCounters ?? newQueueCounters();
  }

  /** Guest to port. @returns packets moved. */
  drainTx(): number {
    const { tx, port } = this;
    if (tx === null || this.txBlocked || this.#txRest.leftMs > 0) return 0;
    const batch = this.#batch;
    batch.clear();
    const droppedBefore = port.dropped;
    let consumed = 0;
    if (tx.gather(batch) > 0) {
      consumed = port.send(batch);
      this.txBlocked = port.sendBlocked;
    }
    if (tx.consume(batch, consumed)) this.#interruptTx();
    countMoved(this.txCounters, batch, consumed);
    if (port.dropped !== droppedBefore) this.txCounters[DROP_PORT] += port.dropped - droppedBefore;
    this.#txRest.looked(brokenDescriptors(this.txCounters), consumed);
    return consumed;
  }

  /** Port to guest. @returns packets moved. */
  fillRx(): number {
    const { rx, port } = this;
    if (rx === null || this.#rxRest.leftMs > 0) return 0;
    this.#interruptDue = false;
    let total = 0;
    for (let few = FIRST_OFFER; ; few = BUDGET) {
      const packets = this.#fill(rx, Math.min(few, BUDGET - total));
      total += packets;
      if (packets === 0 || port.receiveDrained || total >= BUDGET) break;
    }
    if (this.#interruptDue) this.#interruptRx();
    this.#rxRest.looked(brokenDescriptors(this.rxCounters) + port.failures, total);
    return total;
  }

  /** Lays out some buffers, and gives back what the port made of them. @returns packets */
  #fill(rx: RxRing, most: number): number {
    const { port } = this;
    const batch = this.#batch;
    batch.clear();
    if (rx.offer(batch, most) === 0) {
      if (rx.deliver(batch)) this.#interruptDue = true;
      if (!this.rxStarved && !rx.broken) this.rxCounters[NO_BUFFERS]++;
      this.rxStarved = true;
      return 0;
    }
    this.rxStarved = false;
    const { dropped, tooLong } = port;
    port.receive(batch);
    if (rx.deliver(batch)) this.#interruptDue = true;
    countMoved(this.rxCounters, batch, batch.packets);
    if (port.dropped !== dropped) this.rxCounters[DROP_PORT] += port.dropped - dropped;
    if (port.tooLong !== tooLong) this.rxCounters[DROP_TOO_LONG] += port.tooLong - tooLong;
    return batch.packets;
  }

  /** What the guest takes in received packets: OFFLOAD_* bits. Holds for ports to come, too. */
  setReceiveOffloads(offloads: number): void {
    this.#receiveOffloads = offloads;
    this.port.setReceiveOffloads(offloads);
  }

  /** Another port from here on; the guest does not notice. The old one is the caller's to close. */
  setPort(port: Port): void {
    const { dropped } = this.port;
    this.port.discard();
    this.rxCounters[DROP_PORT] += this.port.dropped - dropped;
    this.port = port;
    port.setReceiveOffloads(this.#receiveOffloads);
    this.portWritable();
  }

  /** The port says that it is writable again, or it is not known whether it is. */
  portWritable(): void {
    this.txBlocked = false;
  }

  /** Milliseconds until a direction that rests is to be looked at again; 0: none rests. */
  get restMs(): number {
    const rx = this.rx === null ? 0 : this.#rxRest.leftMs;
    const tx = this.tx === null ? 0 : this.#txRest.leftMs;
    return rx === 0 || tx === 0 ? Math.max(rx, tx) : Math.min(rx, tx);
  }

  /** It found nothing but errors lately: neither ring nor port is looked at for a while. */
  get rxResting(): boolean {
    return this.#rxRest.leftMs > 0;
  }

  /**
   * Looks at both rings at once, whatever was found there: they
   * are about to be given up, or are new.
   */
  endRest(): void {
    this.#rxRest.end();
    this.#txRest.end();
  }

  /** A doorbell: only counted, because the loop looks at the ring anyway. */
  kicked(tx: boolean): void {
    (tx ? this.txCounters : this.rxCounters)[KICKS]++;
  }

  /**
   * Before sleeping: asks the guest for kicks where only it can wake us. TX: always, unless the
   * port blocks (then the port wakes us). RX: only when starved; otherwise the port wakes us. Not
   * while a direction rests.
   * @returns true where work is there already.
   */
  armKicks(): boolean {
    let work = false;
    const { tx, rx } = this;
    const txRests = this.#txRest.leftMs > 0;
    if (tx !== null && !this.txBlocked && !txRests && tx.enableKicks()) work = true;
    if (rx !== null && this.rxStarved && !this.rxResting && rx.enableKicks()) {
      this.rxStarved = false;
      work = true;
    }
    return work || this.#portHasMore();
  }

  /** Packets wait in a port that cannot wake us, and the guest has room: nobody else would. */
  #portHasMore(): boolean {
    const { rx, port } = this;
    if (port.fd >= 0 || port.receiveDrained) return false;
    return rx !== null && !rx.broken && !this.rxStarved && !this.rxResting;
  }

  /**
   * Sends overdue interrupts: a while after the rings became quiet, and now and then while they are
   * not. Each side stores its request and then polls the ring, with full barriers. But QEMU's
   * translator (TCG) drops the barriers of a guest with one CPU, so both sides may miss the other's
   * store. The engine polls the rings again anyway.
   */
  lookAgain(): void {
    if (this.rx?.interruptOverdue()) this.#interruptRx();
    if (this.tx?.interruptOverdue()) this.#interruptTx();
  }

  disarmKicks(): void {
    this.tx?.disableKicks();
    this.rx?.disableKicks();
  }

  #interruptTx(): void {
    this.txCounters[INTERRUPTS]++;
    this.#fire(this.#txVector);
  }

  #interruptRx(): void {
    this.rxCounters[INTERRUPTS]++;
    this.#fire(this.#rxVector);
  }
}

/** The first `count` packets of a batch went through. */
function countMoved(counters: QueueCounters, { length }: Batch, count: number): void {
  if (count === 0) return;
  let bytes = 0;
  for (let p = 0; p < count; p++) bytes += length[p];
  counters[PACKETS] += count;
  counters[BYTES] += bytes;
  counters[BATCHES]++;
}

/** Descriptors that were passed over, ever. */
function brokenDescriptors(counters: QueueCounters): number {
  return (
    counters[DROP_BAD_ADDRESS] +
    counters[DROP_BAD_LENGTH] +
    counters[DROP_BAD_CHAIN] +
    counters[DROP_BAD_CHECKSUM] +
    counters[DROP_BAD_SEGMENTATION]
  );
}

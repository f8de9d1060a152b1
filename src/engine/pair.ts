/**
 * A receive and a transmit queue, and the port that they exchange packets with: a packet's way
 * through the host.
 *
 *     out:  ring --gather--> batch --port.send--> outside,     then consume: slots back, interrupt?
 *     in:   ring --offer---> batch <-port.receive-- outside,   then deliver: slots back; interrupt?
 */

import type { TxRing } from "../devices/format.ts";
import { DROP_PORT, INTERRUPTS, type QueueCounters } from "../memory/counters.ts";
import { Batch, type ReceiveFilter } from "../memory/index.ts";
import { receiveOffloads } from "../memory/offloads.ts";
import type { Port } from "../net/port.ts";
import { newProgress, PROGRESS } from "../net/progress.ts";
import { Coalescer } from "./coalescer.ts";
import { brokenDescriptors, countMoved } from "./moved.ts";
import { RxQueue, TxQueue } from "./queue.ts";
import { BUDGET, Receiver } from "./receiver.ts";
import type { RingSettings } from "./registered-ring.ts";
import { Resumption } from "./resumption.ts";
import type { Steering } from "./steering.ts";

export { BUDGET };

/** The longest queue of a TAP is a thousand packets; a source has no end. */
const MAX_WAITING = 2048;

/** Segments of a batch: enough for BUDGET packets of a guest's stack, and for any single packet. */
const MAX_SEGMENTS = 20 * BUDGET;

export interface QueuePairOptions {
  readonly port: Port;
  /** The number of the pair, too. */
  readonly rxVector: number;
  readonly txVector: number;
  /** Sends an interrupt. */
  readonly fire: (vector: number) => void;
  readonly rxCounters?: QueueCounters;
  readonly txCounters?: QueueCounters;
}

export class QueuePair {
  readonly rx: RxQueue;
  readonly tx: TxQueue;
  port: Port;
  readonly receiver: Receiver;
  /** The port would have blocked: the transmit ring is not polled until the port is writable. */
  txBlocked = false;
  /** A limit holds packets back, and only time ends that: the port's descriptor does not tell. */
  txHeld = false;
  readonly txCoalescer = new Coalescer();
  readonly #batch = new Batch(BUDGET, MAX_SEGMENTS);
  /** The port may hold packets that need offloads which it was told to bring no more. */
  #mayHoldOlder = false;
  readonly #fire: (vector: number) => void;
  /** What the port counts, if it does: see `PROGRESS`. */
  progress = newProgress();
  readonly #resumption = new Resumption();

  constructor({ port, rxVector, txVector, fire, rxCounters, txCounters }: QueuePairOptions) {
    this.port = port;
    this.#fire = fire;
    this.rx = new RxQueue({
      name: `rx${rxVector}`,
      vector: rxVector,
      ...(rxCounters === undefined ? {} : { counters: rxCounters }),
      attached: (features) => {
        // The port may bring what was negotiated, not what the configuration allows.
        this.setReceiveOffloads(receiveOffloads(features));
        this.receiver.starved = false;
      },
    });
    this.receiver = new Receiver(this, this.#batch, () => this.#interruptRx());
    this.tx = new TxQueue({
      name: `tx${rxVector}`,
      vector: txVector,
      ...(txCounters === undefined ? {} : { counters: txCounters }),
      attached: () => this.portWritable(),
    });
  }

  /** Guest to port. @returns packets moved. */
  drainTx(): number {
    const { tx: queue, port } = this;
    const tx = queue.sending;
    if (this.txCoalescer.holds && this.txCoalescer.expired()) this.#interruptTxIfWanted();
    if (this.txHeld && port.sendHeldMs === 0) this.portWritable();
    if (tx === null || this.txBlocked || queue.backOff.leftMs > 0) return 0;
    const { counters } = queue;
    const batch = this.#batch;
    batch.clear();
    const droppedBefore = port.dropped;
    let consumed = 0;
    const found = tx.gather(batch);
    if (found > 0 && this.#resumption.left > 0) consumed = this.#resumption.passOver(found);
    else if (found > 0) {
      this.progress[PROGRESS.sentFrom] = tx.save() | 0;
      consumed = port.send(batch);
      this.txBlocked = port.sendBlocked;
      this.txHeld = this.txBlocked && port.sendHeldMs > 0;
    }
    this.txCoalescer.completed(consumed);
    if (tx.consume(batch, consumed) && this.txCoalescer.wanted()) this.#interruptTx();
    this.progress[PROGRESS.sent] = 0;
    countMoved(counters, batch, consumed);
    if (port.dropped !== droppedBefore) counters[DROP_PORT] += port.dropped - droppedBefore;
    queue.backOff.polled(brokenDescriptors(counters), consumed);
    return queue.retiring === null ? consumed : this.#polledRetiring(tx, consumed);
  }

  /**
   * After a crash of the process that served the rings, when they are attached.
   * @returns packets that may be lost
   */
  resumeFrom(progress: Int32Array): number {
    return this.#resumption.from(this, progress);
  }

  /** Interrupts the guest, which may have missed one. */
  interruptBoth(): void {
    if (this.rx.ring !== null) this.#interruptRx();
    if (this.tx.ring !== null) this.#interruptTx();
  }

  /** After a poll while a ring retires: as soon as that is drained, the current one is polled. */
  #polledRetiring(tx: TxRing, consumed: number): number {
    const { retiring } = this.tx;
    if (retiring === null || retiring.drained || retiring.ring !== tx) return consumed;
    retiring.polled(this.#batch.packets, consumed);
    if (!retiring.drained) return consumed;
    // The guest waits for this, whatever its interrupt setting in the old ring.
    this.#interruptTx();
    return consumed + this.drainTx();
  }

  /** Port to guest. @returns packets moved. */
  fillRx(): number {
    return this.receiver.fill();
  }

  /**
   * The guest moves on to the next transmit ring: what is in the current one is sent first.
   * @param features of the current ring
   */
  cutTx(features: number, settings: RingSettings | null): void {
    this.tx.cut(features, settings);
  }

  /**
   * The guest moves on to the next receive ring: the current one is touched no more. Packets that
   * the port holds and that need offloads which the next set lacks are received before; for those
   * that the guest has no buffers for, the host does what the guest would have done.
   */
  cutRx(features: number, settings: RingSettings | null): void {
    if (this.#mayHoldOlder) {
      this.takeWaiting();
      this.receiver.finishOlder(this.receiver.offloads);
    }
    this.#mayHoldOlder = false;
    this.rx.cut(features, settings);
    this.rx.retiring?.finish();
    this.#interruptRx();
  }

  /**
   * Drains the port into the guest, as far as the guest has buffers. A limit holds nothing back,
   * for there is no later; it counts what comes, and holds what comes after.
   */
  takeWaiting(): void {
    this.receiver.setUrgent(true);
    for (let left = MAX_WAITING; left > 0; ) {
      const moved = this.fillRx();
      if (moved === 0) break;
      left -= moved;
    }
    this.receiver.setUrgent(false);
  }

  /** The port shall bring no more than this, and what it has queued before is still received. */
  lowerReceiveOffloads(offloads: number): void {
    const { receiver, port } = this;
    this.#mayHoldOlder = (receiver.offloads & ~offloads) !== 0;
    const older = receiver.offloads | receiver.olderOffloads;
    port.setReceiveOffloads(offloads & receiver.offloads, older);
  }

  /** Sets the OFFLOAD_* that received packets may need of the guest, for later ports, too. */
  setReceiveOffloads(offloads: number): void {
    this.receiver.offloads = offloads;
    this.port.setReceiveOffloads(offloads, offloads | this.receiver.olderOffloads);
  }

  /** As `Receiver.configure`. @param pairs the NIC's */
  setReceive(
    filter: ReceiveFilter | null,
    steering: Steering | null,
    pairs: readonly QueuePair[],
  ): void {
    this.receiver.configure(filter, steering, pairs);
  }

  /** Replaces the port, unnoticed by the guest. The caller closes the old one. */
  setPort(port: Port): void {
    const { dropped } = this.port;
    this.port.discard();
    this.rx.counters[DROP_PORT] += this.port.dropped - dropped;
    this.succeed(port);
  }

  /** As `setPort`, with a port that gives the guest what the old one holds (`SucceedingPort`). */
  succeed(port: Port): void {
    this.setPolicies(port);
    const { offloads, olderOffloads } = this.receiver;
    port.setReceiveOffloads(offloads, offloads | olderOffloads);
  }

  /** Other policies in front of the same port. */
  setPolicies(port: Port): void {
    this.port = port;
    this.receiver.held = false;
    this.portWritable();
  }

  /** Ends the wait for a blocked port: it is writable, or only the next send can tell. */
  portWritable(): void {
    this.txBlocked = false;
    this.txHeld = false;
  }

  /** Milliseconds until a limit lets packets through again; Infinity: none holds them. */
  get limitMs(): number {
    const { rx, tx, port } = this;
    const holdsTx = this.txHeld && tx.sending !== null;
    const holdsRx = this.receiver.held && rx.ring !== null && !this.rxBackingOff;
    return Math.min(
      holdsTx ? port.sendHeldMs : Number.POSITIVE_INFINITY,
      holdsRx ? port.receiveHeldMs : Number.POSITIVE_INFINITY,
    );
  }

  /** Milliseconds until a direction in back-off is polled again; 0: none is in back-off. */
  get backOffMs(): number {
    const rx = this.rx.ring === null ? 0 : this.rx.backOff.leftMs;
    const tx = this.tx.ring === null ? 0 : this.tx.backOff.leftMs;
    return rx === 0 || tx === 0 ? Math.max(rx, tx) : Math.min(rx, tx);
  }

  /** Polls found nothing but errors lately: neither ring nor port is polled for a while. */
  get rxBackingOff(): boolean {
    return this.rx.backOff.leftMs > 0;
  }

  /** The port may be read. */
  get canReceive(): boolean {
    return this.receiver.ready;
  }

  /** The port had packets and the guest no buffers: the port is not read until the guest kicks. */
  get rxStarved(): boolean {
    return this.receiver.starved;
  }

  get rxCoalescer(): Coalescer {
    return this.receiver.coalescer;
  }

  /**
   * Before a sleep: asks the guest for the kicks that are needed to wake the loop. Transmit: unless
   * the port blocks, because then the port wakes the loop. Receive: only if the guest has no
   * buffers; otherwise the port wakes the loop. Neither direction during its back-off.
   * @returns true if there is work already: do not sleep
   */
  armKicks(): boolean {
    let work = false;
    const rx = this.rx.ring;
    const tx = this.tx.sending;
    const txBackingOff = this.tx.backOff.leftMs > 0;
    // The current ring is polled when the retiring one is drained: its kick may be spent.
    if (this.tx.draining && !this.txBlocked && !txBackingOff) work = true;
    if (tx !== null && !this.txBlocked && !txBackingOff && tx.enableKicks()) work = true;
    if (rx !== null && this.receiver.starved && !this.rxBackingOff && rx.enableKicks()) {
      this.receiver.starved = false;
      work = true;
    }
    return work || this.#portHasMore();
  }

  /** Packets can be received, and the port has no descriptor that would wake the loop for them. */
  #portHasMore(): boolean {
    const { port } = this;
    return port.fd < 0 && !port.receiveDrained && this.canReceive;
  }

  /**
   * Sends overdue interrupts again. Called after 2 ms of silence, and every 10 ms under load: each
   * side stores its request and then polls the ring, with full barriers between, but QEMU's
   * translator (TCG) drops the barriers of a guest with one CPU, so both sides may miss the other's
   * store. Lost kicks need no such care: the loop polls the rings.
   */
  lookAgain(): void {
    if (!this.receiver.coalescer.holds) this.#interruptRxIfWanted();
    if (!this.txCoalescer.holds) this.#interruptTxIfWanted();
  }

  disarmKicks(): void {
    this.tx.sending?.disableKicks();
    this.rx.ring?.disableKicks();
  }

  /** Milliseconds until the next held interrupt is due; Infinity: none is held. */
  get heldMs(): number {
    if (!this.receiver.coalescer.holds && !this.txCoalescer.holds) return Number.POSITIVE_INFINITY;
    return Math.min(this.receiver.coalescer.leftMs, this.txCoalescer.leftMs);
  }

  /** The guest may have taken the packets meanwhile. */
  #interruptRxIfWanted(): void {
    if (this.rx.ring?.interruptOverdue()) this.#interruptRx();
  }

  #interruptTxIfWanted(): void {
    if (this.tx.ring?.interruptOverdue()) this.#interruptTx();
    if (this.tx.retiring?.ring?.interruptOverdue()) this.#interruptTx();
  }

  #interruptTx(): void {
    this.tx.counters[INTERRUPTS]++;
    this.#fire(this.tx.vector);
  }

  #interruptRx(): void {
    this.rx.counters[INTERRUPTS]++;
    this.#fire(this.rx.vector);
  }
}

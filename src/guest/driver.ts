/**
 * A guest driver in user space. It does what the kernel module does, over memory
 * shared with this or another process. Tests of devices and engine use it, and
 * the demo that needs no virtual machine.
 *
 * Programs are compiled to WebAssembly, so contexts are in a WebAssembly memory.
 */
import {
  ABI_VERSION,
  ABILITY,
  BAR_DOORBELLS,
  CTRL,
  EXT_ID_VALUE,
  FEATURES,
  MAX_BUFS,
  type ProgramForm,
  type ProgramSet,
  REG,
  STATUS,
} from "../abi/index.ts";
import type { LocalMemory } from "./memory.ts";
import { type NicTransport, Registers } from "./registers.ts";
import { type Registration, RingPlaces } from "./registration.ts";
import { GuestError, type GuestRing } from "./ring.ts";
import { GuestUpgrade, type OldRing, type RingTable } from "./upgrade.ts";

export type { NicTransport };

export interface GuestDriverOptions {
  /** `v1`: behaves like an original driver, which does not use the extension. */
  readonly form?: ProgramForm;
  /** Bytes of each buffer. */
  readonly bufferSize?: number;
  /** Feature bits to select from the offer; default: none. */
  readonly features?: number;
  /** Acknowledges OVERLAP, if it is offered: `upgrade` takes sets that the NIC stages. */
  readonly overlap?: boolean;
}

/** What frames are passed to, with the ring that they came by. */
export type Take = (frame: Uint8Array, metadata: Uint8Array, ring: GuestRing) => void;

export class GuestDriver implements RingTable {
  readonly pairs: number;
  generation: number;
  programs: ProgramSet;
  /** Negotiated feature bits. */
  features: number;
  readonly mac: Uint8Array;
  readonly rx: GuestRing[];
  readonly tx: GuestRing[];
  /** Takes sets that the NIC stages, if the driver acknowledged OVERLAP. */
  readonly upgrade: GuestUpgrade;
  readonly registrations: Registration[];
  readonly counters = { sent: 0, received: 0, kicks: 0, interrupts: 0, busy: 0 };
  readonly #registers: Registers;
  readonly #memory: LocalMemory;
  readonly #places: RingPlaces;
  readonly #stride: number;

  /** Probes the NIC and fetches its programs. @throws GuestError if the NIC is unsupported */
  constructor(transport: NicTransport, memory: LocalMemory, options: GuestDriverOptions = {}) {
    this.#registers = new Registers(transport, memory);
    this.#memory = memory;
    const form = options.form ?? "helperfree";
    const version = this.#registers.read(REG.VERSION);
    if (version !== ABI_VERSION)
      throw new GuestError(`ABI version ${version}: unsupported, this driver needs ${ABI_VERSION}`);
    if (form === "helperfree") this.#acknowledge(options.overlap === true);
    this.#places = new RingPlaces(this.#registers, memory, form === "helperfree");
    this.pairs = this.#registers.read(REG.NUM_RX_QUEUES);
    this.#stride = this.#registers.read(REG.DOORBELL_SIZE);
    this.mac = this.#registers.readMac();
    this.features = this.#registers.read(REG.FEATURES) & (options.features ?? 0);
    this.#registers.write(REG.FEATURES, this.features);
    this.generation = this.#registers.read(REG.SET_CUR);
    this.programs =
      form === "helperfree" ? this.#registers.fetchBlob() : this.#registers.fetchWindow();
    const bufferSize = options.bufferSize ?? 2048;
    this.registrations = Array.from({ length: 2 * this.pairs }, (_, q) =>
      this.#places.make({
        ...{ direction: q < this.pairs ? "rx" : "tx", programs: this.programs, bufferSize },
        generation: this.generation,
      }),
    );
    const rings = this.registrations.map((r) => r.ring);
    this.rx = rings.slice(0, this.pairs);
    this.tx = rings.slice(this.pairs);
    this.upgrade = new GuestUpgrade({
      ...{ table: this, registers: this.#registers, places: this.#places, bufferSize },
      wanted: options.features ?? 0,
    });
  }

  /** Registers contexts, publishes receive buffers and enables both directions. */
  open(): void {
    this.register();
    this.reopen();
  }

  /** Registers all contexts, which the host then initialises. */
  register(): void {
    for (let q = 0; q < 2 * this.pairs; q++) this.#places.register(q, this.registrations[q]);
  }

  /** Publishes receive buffers on registered contexts and enables both directions. */
  reopen(): void {
    for (let q = 0; q < this.pairs; q++) this.refill(q);
    this.enable();
  }

  enable(): void {
    this.#registers.write(REG.CTRL, CTRL.RX_ENABLE | CTRL.TX_ENABLE);
    const both = STATUS.RX_ENABLED | STATUS.TX_ENABLED;
    if ((this.status & both) !== both)
      throw new GuestError("the device cannot be enabled: STATUS does not show both directions");
  }

  get status(): number {
    return this.#registers.read(REG.STATUS);
  }

  /** Disables the device and reclaims everything outstanding. @returns unused buffers */
  close(): { tx: number; rx: number } {
    this.disable();
    const back = { tx: this.upgrade.stopped(), rx: 0 };
    for (let q = 0; q < this.pairs; q++) {
      while (this.tx[q].collect(() => {}) > 0);
      while (this.rx[q].collect(() => {}) > 0);
      back.tx += this.tx[q].reclaim();
      back.rx += this.rx[q].reclaim();
    }
    return back;
  }

  disable(): void {
    this.#registers.write(REG.CTRL, CTRL.RX_DISABLE | CTRL.TX_DISABLE);
    void this.status;
  }

  /**
   * Sends one frame, in as many buffers as it needs; `metadata` is a virtio_net_hdr of 10 bytes.
   * @returns false if the ring is full, even after reclaiming completions
   */
  send(queue: number, frame: Uint8Array, metadata: Uint8Array | null = null): boolean {
    const ring = this.tx[queue];
    const { bufferSize } = ring;
    const count = Math.max(1, Math.ceil(frame.length / bufferSize));
    if (count > 1 && !(this.features & FEATURES.SG))
      throw new GuestError(
        "the NIC does not offer scatter-gather (SG): a frame must fit one buffer",
      );
    if (ring.free < count) this.clean(queue);
    if (ring.free < count) {
      this.counters.busy++;
      return false;
    }
    for (let i = 0; i < count; i++) {
      const part = frame.subarray(i * bufferSize, (i + 1) * bufferSize);
      const address = ring.addressOf(ring.nextId(i));
      this.#memory.bytes(address, bufferSize).set(part);
    }
    ring.publish(count, bufferSize, frame.length - (count - 1) * bufferSize, metadata);
    this.counters.sent++;
    this.#kick(this.pairs + queue, ring);
    return true;
  }

  /** Reclaims transmit completions. @returns packets */
  clean(queue: number): number {
    let packets = this.upgrade.clean(this.pairs + queue);
    while (this.tx[queue].collect(() => {}) > 0) packets++;
    return packets;
  }

  /**
   * Passes up to `max` received frames with their metadata to `take`, then refills the ring.
   * Both are valid only during the call. A frame in several buffers is joined.
   */
  receive(queue: number, take: Take, max = Number.POSITIVE_INFINITY): number {
    const old = this.upgrade.old[queue];
    let packets = old === null ? 0 : this.#receiveOld(queue, old, take, max);
    if (old === null || old.empty) packets += this.#takeAll(this.rx[queue], take, max - packets);
    this.counters.received += packets;
    this.refill(queue);
    return packets;
  }

  #takeAll(ring: GuestRing, take: Take, max: number): number {
    let packets = 0;
    const parts: Uint8Array[] = [];
    const collect = (id: number, length: number) => {
      if (length > ring.bufferSize) throw new GuestError(`a frame of ${length} bytes`);
      if (length > 0) parts.push(this.#memory.bytes(ring.addressOf(id), length));
    };
    for (; packets < max && ring.collect(collect) > 0; packets++) {
      if (parts.length === 1) take(parts[0], ring.metadata, ring);
      else if (parts.length > 1) take(Buffer.concat(parts), ring.metadata, ring);
      parts.length = 0;
    }
    return packets;
  }

  /**
   * Both rings of a queue, in order: the host ends the old one before it fills the new one, so once
   * a packet of the new one is seen, what is in the old one is all that comes before it.
   */
  #receiveOld(queue: number, old: OldRing, take: Take, max: number): number {
    const { drained } = old;
    let packets = this.#takeAll(old.ring, take, max);
    if (packets >= max) return packets;
    if (drained && old.parked === null) old.empty = true;
    else if (old.parked === null && !this.#park(queue, old)) return packets;
    packets += this.#takeAll(old.ring, take, max - packets);
    if (packets >= max || old.parked === null) return packets;
    take(old.parked.frame, old.parked.metadata, this.rx[queue]);
    old.parked = null;
    old.empty = true;
    return packets + 1;
  }

  /** @returns false if the new ring has no packet */
  #park(queue: number, old: OldRing): boolean {
    const keep: Take = (frame, metadata) => {
      old.parked = { frame: frame.slice(), metadata: metadata.slice() };
    };
    return this.#takeAll(this.rx[queue], keep, 1) === 1;
  }

  /** Publishes all free receive buffers. */
  refill(queue: number): void {
    this.fill(queue, this.registrations[queue]);
  }

  fill(queue: number, { ring }: Registration): void {
    while (ring.free > 0) ring.publish(Math.min(ring.free, MAX_BUFS), ring.bufferSize);
    this.#kick(queue, ring);
  }

  use(queue: number, registration: Registration): void {
    this.registrations[queue] = registration;
    if (queue < this.pairs) this.rx[queue] = registration.ring;
    else this.tx[queue - this.pairs] = registration.ring;
  }

  /** Replaces an MSI-X vector. */
  interrupt(_vector: number): void {
    this.counters.interrupts++;
  }

  #kick(queue: number, ring: GuestRing): void {
    if (!ring.kickNeeded) return;
    ring.kickNeeded = false;
    this.counters.kicks++;
    this.#registers.transport.write(BAR_DOORBELLS, queue * this.#stride, 0);
  }

  #acknowledge(overlap: boolean): void {
    if (this.#registers.read(REG.EXT_ID) !== EXT_ID_VALUE)
      throw new GuestError("the NIC does not offer extension 1 of the ABI");
    const wanted = ABILITY.BLOB | ABILITY.HELPERFREE | ABILITY.CTX_PAGES | ABILITY.QUEUE_PAIRS;
    const offered = this.#registers.read(REG.EXT_OFFER);
    const more = ABILITY.EVENT | (overlap ? ABILITY.OVERLAP & offered : 0);
    this.#registers.write(REG.EXT_ACK, wanted | more);
    if ((this.#registers.read(REG.EXT_ACK) & wanted) !== wanted) {
      throw new GuestError("the NIC offers no verifiable programs (ability HELPERFREE)");
    }
  }

  /**
   * Returns the context of a queue (receive queues first), for tests that inspect or corrupt it.
   */
  contextOf(queue: number): Uint8Array {
    return this.registrations[queue].context;
  }
}

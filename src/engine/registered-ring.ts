/**
 * A context that the guest registered, and the ring in it. The ring is attached (served) while the
 * queue is enabled, the context is mapped guest memory, and the device may use memory; its position
 * outlives every detach.
 */
import type { HostRing, QueueConfig, RingFormat } from "../devices/format.ts";
import type { QueueCounters } from "../memory/counters.ts";
import type { GuestMemory } from "../memory/index.ts";
import { longestReceived } from "../memory/offloads.ts";
import {
  type AbsentContext,
  type MappedContext,
  mapRecord,
  releaseContext,
  stillThere,
} from "./contexts.ts";

/** What a ring needs besides its context. */
export interface RingSettings {
  readonly memory: GuestMemory;
  /** Feature bits that guest and host agreed on. */
  readonly features: number;
  /** Largest MTU that the device can have. */
  readonly mtu: number;
}

export class RegisteredRing<Ring extends HostRing> {
  context: MappedContext | AbsentContext;
  readonly format: RingFormat;
  /** Descriptors. */
  readonly bufs: number;
  /** null while the ring is detached. */
  ring: Ring | null = null;
  /** Ring position while detached; null: resume from what the guest left in the context. */
  position: number | null = 0;
  /** The process that served it crashed: with `position` null. */
  interrupted = false;
  /** The guest's memory map lacks the context. */
  absent: boolean;
  /** Restored as broken: it is served no more, as long as it would have stayed attached. */
  stopped = false;
  /** Feature bits that it was negotiated with, while the queue has rings of two sets. */
  features: number | null = null;
  /** A retiring ring: nothing of it is left to do, and it is never attached again. */
  drained = false;
  /** A retiring ring: packets that it may still hold. A guest could go on publishing. */
  #left = 0;
  #position = -1;
  /** Packets that were sent since it retires. */
  sent = 0;

  constructor(context: MappedContext | AbsentContext, format: RingFormat, bufs: number) {
    this.context = context;
    this.absent = context.words === null;
    this.format = format;
    this.bufs = bufs;
  }

  attach(
    make: (format: RingFormat, config: QueueConfig) => Ring,
    { memory, features, mtu }: RingSettings,
    counters: QueueCounters,
  ): void {
    const context = this.context.words;
    if (this.absent || context === null || this.stopped || this.ring !== null) return;
    if (this.drained) return;
    const { format, bufs, position } = this;
    const selected = this.features ?? features;
    const maxPacket = longestReceived(selected, mtu);
    const config = { context, bufs, memory, features: selected, maxPacket, counters };
    const ring = make(format, config);
    if (position !== null) ring.restore(position);
    else if (this.interrupted && ring.recover !== undefined) ring.recover();
    else ring.resync();
    this.interrupted = false;
    // An awake loop polls the ring, and asks for kicks before it sleeps.
    ring.disableKicks();
    this.ring = ring;
  }

  detach(): void {
    this.stopped = false;
    if (this.ring === null) return;
    this.position = this.ring.save();
    this.ring = null;
  }

  /** The guest publishes nothing more to it. */
  retire(features: number | null): void {
    this.features = features;
    this.#left = this.bufs;
    this.#position = this.ring?.save() ?? this.position ?? -1;
    if (this.broken) this.finish();
  }

  /** Nothing of it is left to do: its memory is never touched again. */
  finish(): void {
    this.drained = true;
    this.detach();
  }

  /**
   * Call after each poll of a retiring transmit ring. It is drained when a poll finds nothing, and
   * at the latest after as many packets as it has descriptors.
   */
  polled(gathered: number, consumed: number): void {
    if (this.ring === null) return;
    this.sent += consumed;
    const position = this.ring.save();
    const idle = gathered === 0 && position === this.#position;
    this.#position = position;
    this.#left -= gathered === 0 ? 1 : consumed;
    if (idle || this.#left < 0 || this.ring.broken) this.finish();
  }

  /** Compares the guest's memory map with the mapping; detaches the ring if they differ. */
  memoryChanged(memory: GuestMemory): void {
    this.absent = !stillThere(memory, this.context);
    if (this.absent) this.detach();
    else if (this.context.words === null) this.#map(memory);
  }

  /** Maps a context that was absent when it was restored. */
  #map(memory: GuestMemory): void {
    const mapped = mapRecord(this.context.record, memory);
    if (typeof mapped === "string") this.absent = true;
    else this.context = mapped;
  }

  /** The guest's indices were invalid. */
  get broken(): boolean {
    return this.ring?.broken ?? this.stopped;
  }

  /** Unregisters. Nothing touches the context's memory from here on. */
  release(): void {
    this.detach();
    releaseContext(this.context);
  }
}

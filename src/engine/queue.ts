/**
 * One queue of a NIC in one direction: its rings and its counters. A queue has one current ring.
 * While that is being replaced the queue also has the next ring, which the guest prepares and the
 * host does not look at; after the cut the next ring is the current one, and the queue has a
 * retiring ring, which the guest publishes nothing more to and which is served until it is empty.
 *
 * No I/O is in flight between turns of the loop, so `detach`, `disable` and `forget` are complete
 * when they return.
 */
import type { HostRing, QueueConfig, RingFormat, RxRing, TxRing } from "../devices/format.ts";
import { KICKS, newQueueCounters, type QueueCounters } from "../memory/counters.ts";
import type { GuestMemory } from "../memory/index.ts";
import { BackOff } from "./back-off.ts";
import type { MappedContext } from "./contexts.ts";
import { RegisteredRing, type RingSettings } from "./registered-ring.ts";

export interface QueueOptions {
  /** "rx0" */
  readonly name: string;
  /** The interrupt of its completions. */
  readonly vector: number;
  readonly counters?: QueueCounters;
  /** Called when a ring was attached, with the features that it was made for. */
  readonly attached: (features: number) => void;
}

export abstract class Queue<Ring extends HostRing = HostRing> {
  abstract readonly direction: "rx" | "tx";
  readonly name: string;
  readonly vector: number;
  readonly counters: QueueCounters;
  readonly backOff = new BackOff();
  /** Ring format and number of descriptors that the next registered context is for. */
  format: RingFormat | null = null;
  bufs = 0;
  /** The guest enabled the direction: rings are attached as soon as they can be served. */
  enabled = false;
  current: RegisteredRing<Ring> | null = null;
  /** `current.ring`, null while it is not served; kept here because each poll reads it. */
  ring: Ring | null = null;
  retiring: RegisteredRing<Ring> | null = null;
  next: RegisteredRing<Ring> | null = null;
  readonly #attached: (features: number) => void;

  constructor(options: QueueOptions) {
    this.name = options.name;
    this.vector = options.vector;
    this.counters = options.counters ?? newQueueCounters();
    this.#attached = options.attached;
  }

  protected abstract readonly makeRing: (format: RingFormat, config: QueueConfig) => Ring;

  /** The guest has registered a context. Its memory may be absent at present. */
  get registered(): boolean {
    return this.current !== null;
  }

  /* Contexts */

  configure(format: RingFormat, bufs: number): void {
    this.format = format;
    this.bufs = bufs;
  }

  /** Bytes of the next context. */
  get contextSize(): number {
    return this.format === null ? 0 : this.format.contextSize(this.bufs);
  }

  /** Initialises a context that the guest has just registered, in place of the current one. */
  register(context: MappedContext): void {
    if (this.format === null) throw new Error(`queue ${this.name} has no ring format`);
    this.current?.release();
    this.format.initialise(this.direction, context.words, this.bufs);
    this.current = new RegisteredRing<Ring>(context, this.format, this.bufs);
    this.ring = null;
  }

  /** Initialises a context for the next set, beside the current one, or in place of another. */
  registerNext(context: MappedContext, format: RingFormat, bufs: number): void {
    this.forgetNext();
    format.initialise(this.direction, context.words, bufs);
    this.next = new RegisteredRing<Ring>(context, format, bufs);
  }

  forgetNext(): void {
    this.next?.release();
    this.next = null;
  }

  /** Unregisters all contexts. Nothing touches their memory from here on. */
  forget(): void {
    this.retired();
    this.forgetNext();
    this.current?.release();
    this.current = null;
    this.ring = null;
  }

  /** Continues with the rings of another process, which `attach` serves. */
  adopt(
    enabled: boolean,
    current: RegisteredRing<HostRing> | null,
    retiring: RegisteredRing<HostRing> | null,
    next: RegisteredRing<HostRing> | null = null,
  ): void {
    this.enabled = enabled;
    // A ring is made by this queue when it is attached.
    this.current = current as RegisteredRing<Ring> | null;
    this.retiring = retiring as RegisteredRing<Ring> | null;
    this.next = next as RegisteredRing<Ring> | null;
    this.retiring?.retire(this.retiring.features);
    if (this.current !== null) this.configure(this.current.format, this.current.bufs);
  }

  /**
   * The guest has moved on to the next ring: the current one retires.
   * @param features of the retiring ring; the next one has its own
   */
  cut(features: number, settings: RingSettings | null): void {
    this.retired();
    this.retiring = this.current;
    this.retiring?.retire(features);
    this.#takeNext();
    // The back-off was due to what the guest published to the retiring ring.
    this.backOff.end();
    this.attach(settings);
  }

  /** Makes the next ring, if there is one, the current one of a queue that is disabled. */
  adoptNext(): void {
    if (this.next === null) return;
    this.current?.release();
    this.#takeNext();
  }

  #takeNext(): void {
    this.current = this.next;
    this.next = null;
    this.ring = null;
    if (this.current !== null) this.configure(this.current.format, this.current.bufs);
  }

  /** Unregisters the retiring ring. */
  retired(): void {
    this.retiring?.release();
    this.retiring = null;
  }

  /* Attaching and detaching */

  /**
   * Serves the rings from what the guest left in them: it may have reclaimed descriptors before.
   * @param settings null while the device may not use memory; `attach` follows when it may
   */
  enable(settings: RingSettings | null): void {
    this.enabled = true;
    if (this.current !== null) {
      this.current.position = null;
      this.current.stopped = false;
    }
    // The back-off was due to what the previous driver published.
    this.backOff.end();
    this.attach(settings);
  }

  disable(): void {
    this.enabled = false;
    this.detach();
    this.retired();
  }

  /** Attaches the rings of an enabled queue, each at its position. */
  attach(settings: RingSettings | null): void {
    if (!this.enabled || settings === null) return;
    this.retiring?.attach(this.makeRing, settings, this.counters);
    this.current?.attach(this.makeRing, settings, this.counters);
    const ring = this.current?.ring ?? null;
    if (ring === this.ring) return;
    this.ring = ring;
    this.#attached(this.current?.features ?? settings.features);
  }

  detach(): void {
    this.retiring?.detach();
    this.next?.detach();
    this.current?.detach();
    this.ring = null;
  }

  /**
   * Follows a change of the guest's memory map: a ring whose context is no longer the memory that
   * was mapped is detached until that memory is back. (Firmware remaps low memory in several steps
   * while a guest runs.)
   * @returns true if the change took a context away
   */
  memoryChanged(memory: GuestMemory, settings: RingSettings | null): boolean {
    const before = this.absent;
    this.retiring?.memoryChanged(memory);
    this.current?.memoryChanged(memory);
    this.next?.memoryChanged(memory);
    if (this.current?.absent) this.ring = null;
    this.attach(settings);
    return this.absent && !before;
  }

  /** The guest's memory map lacks a context. */
  get absent(): boolean {
    return (this.current?.absent ?? false) || (this.retiring?.absent ?? false);
  }

  /** Counts a doorbell. An awake loop polls the ring anyway. */
  kicked(): void {
    this.counters[KICKS]++;
  }

  /* Status */

  /** The guest's indices were invalid: the queue is not served until it is registered again. */
  get broken(): boolean {
    return this.current?.broken ?? false;
  }

  /** Descriptors published and not yet used, in both rings; null while the queue is not served. */
  get fill(): number | null {
    if (this.ring === null) return null;
    return this.ring.fill() + (this.retiring?.ring?.fill() ?? 0);
  }

  /** A line for each ring, in the format of the original's queue dump. */
  dump(): string[] {
    return [this.retiring?.ring, this.ring].flatMap((ring) => ring?.dump() ?? []);
  }
}

export class RxQueue extends Queue<RxRing> {
  readonly direction = "rx";

  protected readonly makeRing = (format: RingFormat, config: QueueConfig): RxRing =>
    format.rx(config);
}

export class TxQueue extends Queue<TxRing> {
  readonly direction = "tx";

  protected readonly makeRing = (format: RingFormat, config: QueueConfig): TxRing =>
    format.tx(config);

  /** The ring to send from: the retiring one until it is drained; null if there is none. */
  get sending(): TxRing | null {
    const { retiring } = this;
    if (retiring === null || retiring.drained) return this.ring;
    // While its memory is absent, newer packets wait, so that order is kept.
    return retiring.ring;
  }

  /** A retiring ring is served, which may hold packets. */
  get draining(): boolean {
    const { retiring } = this;
    return retiring !== null && !retiring.drained && retiring.ring !== null;
  }
}

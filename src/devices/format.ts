/**
 * What a ring format is to the rest. A packet's way: `gather` fills a batch from the ring, a port
 * sends it, `consume` completes the descriptors; in the other direction `offer` lays out free
 * buffers, a port makes packets of them, `deliver` completes those.
 *
 * Only what the engine, the NIC and the frontends call is here. Packets, bytes and batches are
 * counted by the engine, which holds the batch; a ring counts what it drops.
 */
import type { ProgramForm, ProgramSet } from "../abi/index.ts";
import type { QueueCounters } from "../memory/counters.ts";
import type { Batch, ContextWords, GuestMemory } from "../memory/index.ts";

/** What a ring is made of. */
export interface QueueConfig {
  /** The whole context, public part included. */
  readonly context: ArrayBuffer | ContextWords;
  readonly bufs: number;
  readonly memory: GuestMemory;
  readonly counters: QueueCounters;
  /** Feature bits that guest and host agreed on. */
  readonly features: number;
  /** Bytes of the longest packet that is received. */
  readonly maxPacket: number;
}

/**
 * Host half of one ring, either direction. Everything that must survive a change of worker is in
 * `save()`; none of it is read back from guest memory, except what only the guest knows: its
 * producer index and its notification settings.
 */
export interface HostRing {
  /** The guest's indices were invalid; the queue stops until its context is registered again. */
  readonly broken: boolean;
  /**
   * Asks the guest to kick.
   * @returns true if descriptors are published already: then do not sleep
   */
  enableKicks(): boolean;
  disableKicks(): void;
  /** Descriptors published and not yet used, for display; clamped to 0..bufs. */
  fill(): number;
  /**
   * True if unreclaimed completions warrant an interrupt under the guest's current setting. True
   * for a moment after each interrupt; if it stays true, the interrupt was lost.
   */
  interruptOverdue(): boolean;
  /** Ring position, for the state record. */
  save(): number;
  restore(position: number): void;
  /**
   * The queue is enabled: takes over the index that the guest left in the context. Reclaiming moves
   * it past what was reclaimed (ABI version 1 does not register contexts again between close and
   * open).
   */
  resync(): void;
  /**
   * As `resync`, after a crash of the process that served the ring: completes what that had begun
   * to complete. Missing: `resync` finds all of it.
   */
  recover?(): void;
  /** One line for display, in the original's form. */
  dump(): string;
}

/** Transmit: what a batch of packets passes through. */
export interface TxPath {
  /**
   * Appends published packets to the batch until it is full or the ring empty.
   * @returns packets in the batch
   */
  gather(batch: Batch): number;
  /**
   * Completes everything up to and including packet `count - 1` of the batch, and the invalid
   * descriptors before it; if `count` is the whole batch, also those behind it.
   * @returns true if the guest wants an interrupt
   */
  consume(batch: Batch, count: number): boolean;
}

/** Receive: what a batch of packets passes through. */
export interface RxPath {
  /**
   * Appends free buffers to the batch, as segments: about `max`, and enough for the longest packet.
   * @returns segments in the batch; 0 if the guest has published too few for a packet
   */
  offer(batch: Batch, max: number): number;
  /**
   * Completes the packets that the port made of them.
   * @returns true if the guest wants an interrupt
   */
  deliver(batch: Batch): boolean;
  /**
   * After a crash of the process that served the ring: completes so many buffers without packets,
   * for their sizes may be those of packets. Missing: smaller buffers do no harm.
   */
  discard?(count: number): void;
}

export interface TxRing extends HostRing, TxPath {}
export interface RxRing extends HostRing, RxPath {}

export interface ProgramOptions {
  /** Buffers of the queue: a power of two in 16..8192. */
  readonly bufs: number;
  readonly form: ProgramForm;
}

/** Guest programs as source text: compiled for each ring size and form. */
export interface ProgramSource {
  /** The TypeScript file that exports the eight programs: a file URL. */
  readonly url: string;
  /** Values of names that the file imports or declares as layouts, besides those of the ABI. */
  readonly given: Readonly<Record<string, unknown>>;
  /** Values of its `declare const` besides `bufs` and `form`. */
  constants(options: ProgramOptions): Readonly<Record<string, unknown>>;
}

/** What rings look like and who does what with them. `defineNic` makes one. */
export interface RingFormat {
  readonly name: string;
  /** Feature bits that it can offer; 0: its packets carry no metadata. */
  readonly features: number;
  /** Source of its guest programs, or what makes ready sets, for example of objects. */
  readonly programs: ProgramSource | ((options: ProgramOptions) => ProgramSet);
  /** Why a queue cannot have so many buffers; null if it can. */
  sizeProblem(bufs: number): string | null;
  /** Bytes of a whole context. */
  contextSize(bufs: number): number;
  /** Writes the private area of a fresh context. */
  initialise(direction: "rx" | "tx", context: ArrayBuffer | ContextWords, bufs: number): void;
  tx(config: QueueConfig): TxRing;
  rx(config: QueueConfig): RxRing;
}

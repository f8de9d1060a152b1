/**
 * What a device is to the rest: a ring format, its guest programs, and the host half of
 * its queues. A packet's way: `gather` fills a batch from the ring, a port sends it,
 * `consume` gives the slots back; in the other direction `offer` lays out free buffers,
 * a port makes packets of them, `deliver` completes.
 */
import type { ProgramForm, ProgramSet } from "../abi/index.ts";
import type { QueueCounters } from "../memory/counters.ts";
import type { Batch, ContextWords, GuestMemory } from "../memory/index.ts";

export interface QueueConfig {
  /** The whole context, public part included. */
  readonly context: ArrayBuffer | ContextWords;
  readonly bufs: number;
  readonly memory: GuestMemory;
  readonly counters: QueueCounters;
  /** Feature bits that guest and host agreed on. */
  readonly features: number;
  /** Bytes of the longest packet that may come in. */
  readonly maxPacket: number;
}

/**
 * Host half of a ring. All its state that must survive a change of worker is in `save()`; none of
 * it is ever read back from guest memory, except what only the guest can know: its producer index
 * and notification settings.
 */
export interface HostRing {
  /** The guest lied about its indices; the queue does nothing more until it is registered again. */
  readonly broken: boolean;
  /** Asks the guest to kick. @returns true if work is already there: then do not sleep. */
  enableKicks(): boolean;
  disableKicks(): void;
  /** Is there something in the ring? One shared load. */
  pending(): boolean;
  /**
   * Descriptors that the guest has published and the host not used
   * yet: for people, clamped to what can be.
   */
  fill(): number;
  /**
   * Was an interrupt due for what is complete and not taken back, by the interrupt setting as it is
   * now? True for a moment after each; if it stays true, the guest's store of the setting and the
   * host's load of it passed each other.
   */
  interruptOverdue(): boolean;
  /** Ring position for the state record. */
  save(): number;
  restore(position: number): void;
  /**
   * The device is enabled: takes up what the guest left in the context. Reclaiming,
   * it moved the host's index past what it took back (ABI version 1 does not
   * register contexts again between close and open).
   */
  resync(): void;
  /** One line for people, in the words of the original's dump. */
  dump(): string;
}

export interface TxRing extends HostRing {
  /**
   * Appends published packets to the batch until it is full or the
   * ring empty. @returns packets in the batch
   */
  gather(batch: Batch): number;
  /**
   * Completes everything up to and including packet `count - 1` of the batch (and
   * the bad descriptors before or, where count is all of it, after them).
   * @returns true if the guest wants an interrupt.
   */
  consume(batch: Batch, count: number): boolean;
}

export interface RxRing extends HostRing {
  /**
   * Appends free buffers to the batch, as segments: about `max`, and enough for the longest packet.
   * @returns segments in the batch; 0 where the guest has published too few for a packet
   */
  offer(batch: Batch, max: number): number;
  /**
   * Completes the packets that the port made of them. @returns true if an interrupt is wanted.
   */
  deliver(batch: Batch): boolean;
}

/**
 * The host's side of a kind of device: what the worker of a NIC needs, and loads no compiler for.
 */
export interface RingFormat {
  readonly name: string;
  /** Feature bits that it can offer; 0: its packets carry no metadata. */
  readonly features: number;
  /** Why its queues cannot have so many buffers; null, or no such function: they can. */
  sizeProblem?(bufs: number): string | null;
  contextSize(bufs: number): number;
  /** Writes the private area of a fresh context. */
  initialise(direction: "rx" | "tx", context: ArrayBuffer | ContextWords, bufs: number): void;
  tx(config: QueueConfig): TxRing;
  rx(config: QueueConfig): RxRing;
}

/** A kind of device, by name. */
export interface Device extends RingFormat {
  programs(options: { bufs: number; form: ProgramForm }): ProgramSet;
}

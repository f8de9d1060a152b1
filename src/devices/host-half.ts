/** What the host half of every ring stands on: a mapped context, guest memory, counters. */
import type { GuestMemory } from "../memory/index.ts";
import type { QueueCounters } from "./counters.ts";
import type { QueueConfig } from "./device.ts";

export abstract class HostHalf {
  /** The context, as 32-bit words. */
  protected readonly words: Int32Array;
  /** A power of two. */
  protected readonly bufs: number;
  /** Makes a slot of a position that counts up for ever. */
  protected readonly mask: number;
  protected readonly memory: GuestMemory;
  protected readonly counters: QueueCounters;

  /**
   * @param needed bytes that a context of so many buffers has
   * @throws RangeError where the context has less
   */
  constructor(config: QueueConfig, needed: number) {
    if (config.context.byteLength < needed) {
      throw new RangeError(`context of ${config.context.byteLength} bytes: ${needed} are needed`);
    }
    this.words = new Int32Array(config.context);
    this.bufs = config.bufs;
    this.mask = config.bufs - 1;
    this.memory = config.memory;
    this.counters = config.counters;
  }
}

/** What the host half of every ring stands on: a mapped context, guest memory, counters. */
import { PRIVATE_OFFSET } from "../abi/index.ts";
import type { QueueCounters } from "../memory/counters.ts";
import {
  type Batch,
  beginReceive,
  beginSend,
  type ContextWords,
  contextWords,
  deliverSplit,
  type GuestMemory,
  splitToReceive,
  splitToSend,
  translateHalves,
} from "../memory/index.ts";
import type { QueueConfig } from "./format.ts";

export abstract class HostRingBase {
  protected readonly words: ContextWords;
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
    this.words = contextWords(config.context);
    const { byteLength } = this.words;
    if (byteLength < needed) {
      throw new RangeError(`context of ${byteLength} bytes: ${needed} are needed`);
    }
    this.bufs = config.bufs;
    this.mask = config.bufs - 1;
    this.memory = config.memory;
    this.counters = config.counters;
  }

  /** Begins a batch to send, in which `sendAddress` is called. */
  protected beginSend(): void {
    beginSend();
  }

  /** Begins a batch to receive into, in which `receiveAddress` is called. */
  protected beginReceive(): void {
    beginReceive();
  }

  /** Host address of a buffer to send; 0 if it is not guest memory. */
  protected sendAddress(low: number, high: number, length: number): number {
    const address = translateHalves(this.memory, low, high, length, false);
    return address !== 0 ? address : splitToSend(this.memory, whole(low, high), length);
  }

  /**
   * Host address of a buffer that will be segment `segment` of the batch; 0 if it is not memory.
   */
  protected receiveAddress(low: number, high: number, length: number, segment: number): number {
    const address = translateHalves(this.memory, low, high, length, true);
    return address !== 0 ? address : splitToReceive(this.memory, whole(low, high), length, segment);
  }

  /** Before completing what a port made of a batch: buffers in several pieces get their bytes. */
  protected deliverSplit(batch: Batch): void {
    deliverSplit(batch, this.memory);
  }
}

function whole(low: number, high: number): number {
  return (high >>> 0) * 4294967296 + (low >>> 0);
}

/** Zeroes the private area. */
export function clearPrivate(words: ContextWords): void {
  for (let i = PRIVATE_OFFSET >> 2; i < words.byteLength >> 2; i++) words.set(i, 0);
}

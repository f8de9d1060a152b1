/** Host addresses of a guest's buffers. */
import {
  type Batch,
  beginReceive,
  beginSend,
  deliverSplit,
  type GuestMemory,
  splitToReceive,
  splitToSend,
  translateHalves,
} from "../memory/index.ts";

/** An Ethernet header; anything shorter is an invalid packet. */
export const MIN_PACKET = 14;
/** No packet without segmentation is longer; also keeps lengths small integers. */
export const MAX_PACKET = 65536;

/**
 * Translates guest addresses, each together with its length. A buffer that is contiguous in host
 * memory is used in place; a scattered one is copied through an area of the host.
 */
export class GuestBuffers {
  readonly #memory: GuestMemory;

  constructor(memory: GuestMemory) {
    this.#memory = memory;
  }

  /** Begins a batch to send: call it first in `gather`. */
  beginSend(): void {
    beginSend();
  }

  /** Host address of a buffer to send; 0 if it is not guest memory. */
  toSend(low: number, high: number, length: number): number {
    const address = translateHalves(this.#memory, low, high, length, false);
    return address !== 0 ? address : splitToSend(this.#memory, whole(low, high), length);
  }

  /** Begins a batch to receive into: call it first in `offer`. */
  beginReceive(): void {
    beginReceive();
  }

  /** Host address of the buffer for segment `segment` of the batch; 0 if it is not guest memory. */
  toReceive(low: number, high: number, length: number, segment: number): number {
    const address = translateHalves(this.#memory, low, high, length, true);
    return address !== 0
      ? address
      : splitToReceive(this.#memory, whole(low, high), length, segment);
  }

  /** Copies received bytes to scattered buffers: call it first in `deliver`. */
  received(batch: Batch): void {
    deliverSplit(batch, this.#memory);
  }
}

function whole(low: number, high: number): number {
  return (high >>> 0) * 4294967296 + (low >>> 0);
}

/**
 * Bounce buffers, for buffers that are not contiguous in host memory. Rings and ports take a buffer
 * as one address and length, so such a buffer is copied: gathered before it is sent, scattered
 * after it was received. Rare, and correct for every format and port.
 *
 * One area for each direction is enough: a thread sends or delivers a batch before it begins the
 * next one.
 */
import { mapAnonymous } from "../os/memory.ts";
import type { Batch } from "./batch.ts";
import type { GuestMemory } from "./guest-memory.ts";
import { contiguousHost, gatherPieces, isReachable, scatterPieces } from "./pieces.ts";

/**
 * Bytes of an area: more than the valid packets of a batch need (64 packets of 64 KiB), and enough
 * for a chain of 64 descriptors of 64 KiB, which is gathered before its length is checked. The
 * first packet of a batch always fits.
 */
const AREA = 1 << 23;
/** Segments of the largest batch. */
const MAX_ENTRIES = 4096;

class Bounce {
  #address = 0;
  #used = 0;
  /* For each buffer in the area: its segment in the batch, its host and its guest address */
  readonly #segment = new Int32Array(MAX_ENTRIES);
  readonly #host = new Float64Array(MAX_ENTRIES);
  readonly #guest = new Float64Array(MAX_ENTRIES);
  #count = 0;

  /** Drops the buffers of the previous batch. */
  reset(): void {
    this.#used = 0;
    this.#count = 0;
  }

  get count(): number {
    return this.#count;
  }

  /** Allocates a buffer. @returns its host address; 0 if the area is full */
  take(segment: number, guest: number, length: number): number {
    if (length > AREA - this.#used || this.#count === MAX_ENTRIES) return 0;
    if (this.#address === 0) this.#address = mapAnonymous(AREA).address;
    const host = this.#address + this.#used;
    this.#used += Math.ceil(length / 64) * 64;
    const at = this.#count++;
    this.#segment[at] = segment;
    this.#host[at] = host;
    this.#guest[at] = guest;
    return host;
  }

  /** Copies received packets from the area to the guest's buffers. */
  scatter(batch: Batch, memory: GuestMemory): void {
    let entry = 0;
    for (let p = 0; p < batch.packets && entry < this.#count; p++) {
      let rest = batch.length[p];
      for (let s = batch.first[p]; s < batch.first[p + 1]; s++) {
        const part = Math.min(batch.size[s], rest);
        rest -= part;
        while (entry < this.#count && this.#segment[entry] < s) entry++;
        if (entry === this.#count) return;
        if (this.#segment[entry] === s && part > 0) {
          scatterPieces(memory, this.#guest[entry], part, this.#host[entry]);
        }
      }
    }
  }
}

const sending = new Bounce();
const receiving = new Bounce();

/** Begins a batch to send. Call it before the first `splitToSend`. */
export function beginSend(): void {
  if (sending.count > 0) sending.reset();
}

/** Begins a batch to receive into. Call it before the first `splitToReceive`. */
export function beginReceive(): void {
  if (receiving.count > 0) receiving.reset();
}

/**
 * Gathers a buffer that `translate` refused.
 * @returns its host address; 0 if not all of it is readable guest memory, or if the area is full:
 * then the buffer waits for the next batch
 */
export function splitToSend(memory: GuestMemory, address: number, length: number): number {
  const direct = contiguousHost(memory, address, length, false);
  if (direct !== 0) return direct;
  if (!isReachable(memory, address, length, false)) return 0;
  const host = sending.take(0, address, length);
  if (host !== 0) gatherPieces(memory, address, length, host);
  return host;
}

/** As `splitToSend`, for a buffer to be filled, which becomes segment `segment` of the batch. */
export function splitToReceive(
  memory: GuestMemory,
  address: number,
  length: number,
  segment: number,
): number {
  const direct = contiguousHost(memory, address, length, true);
  if (direct !== 0) return direct;
  if (!isReachable(memory, address, length, true)) return 0;
  return receiving.take(segment, address, length);
}

/** Scatters received packets to the guest's buffers. Call it before they are completed. */
export function deliverSplit(batch: Batch, memory: GuestMemory): void {
  if (receiving.count > 0) receiving.scatter(batch, memory);
}

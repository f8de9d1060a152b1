/**
 * Buffers in several pieces, on their way between guest memory and a port. Rings and ports know a
 * buffer as one address and length, so such a buffer is copied through an area of our own: gathered
 * before it is sent, scattered after it was received. Rare, and correct for every format and port.
 *
 * One batch at a time per thread and direction, as queue pairs work: the engine sends or delivers a
 * batch before the next one is begun. That is why one area for each direction is enough.
 */
import { mapAnonymous } from "../os/memory.ts";
import type { Batch } from "./batch.ts";
import type { GuestMemory } from "./guest-memory.ts";
import { contiguousHost, gatherPieces, isReachable, scatterPieces } from "./pieces.ts";

/**
 * More than a batch can have in buffers that count: 64 packets of 64 KiB, and
 * a chain of 64 descriptors of 64 KiB each that is looked at before its
 * length is judged. A first packet always fits.
 */
const AREA = 1 << 23;
/** Segments of the largest batch. */
const MAX_ENTRIES = 4096;

class Bounce {
  #address = 0;
  #used = 0;
  /** Of each buffer in the area: its segment in the batch, where it is here, where in the guest. */
  readonly #segment = new Int32Array(MAX_ENTRIES);
  readonly #host = new Float64Array(MAX_ENTRIES);
  readonly #guest = new Float64Array(MAX_ENTRIES);
  #count = 0;

  /** Forgets the batch before. */
  reset(): void {
    this.#used = 0;
    this.#count = 0;
  }

  get count(): number {
    return this.#count;
  }

  /** Room for a buffer; 0 if there is none. */
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

  /** Copies what packets of the batch have in the area to where the guest wants it. */
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

/** A batch to send is begun: call before the first `splitToSend`. */
export function beginSend(): void {
  if (sending.count > 0) sending.reset();
}

/** A batch to receive into is begun: call before the first `splitToReceive`. */
export function beginReceive(): void {
  if (receiving.count > 0) receiving.reset();
}

/**
 * Host address of a buffer that `translate` refused, with its bytes; 0 if they
 * are not all readable guest memory, or if the batch holds so much of this
 * already that the buffer has to wait for the next.
 */
export function splitToSend(memory: GuestMemory, address: number, length: number): number {
  const direct = contiguousHost(memory, address, length, false);
  if (direct !== 0) return direct;
  if (!isReachable(memory, address, length, false)) return 0;
  const host = sending.take(0, address, length);
  if (host !== 0) gatherPieces(memory, address, length, host);
  return host;
}

/** The same for a buffer to be filled, which will be segment `segment` of the batch. */
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

/** Brings received packets to their buffers: before they are completed. */
export function deliverSplit(batch: Batch, memory: GuestMemory): void {
  if (receiving.count > 0) receiving.scatter(batch, memory);
}

/**
 * MSI-X vectors: each has an eventfd, a mask and a pending bit. The client owns the vector table
 * and usually the masks. Masks that it sets by message are kept here; a vector that fires while it
 * is masked is delivered at unmask.
 */

import { type ClaimedFds, type RecordReader, readRecord, type SavedFds } from "../memory/record.ts";
import { isEventFd, signalPeer } from "../os/eventfd.ts";
import { close } from "../os/fd.ts";
import type { MsixPlace } from "./config-space.ts";
import { IRQ } from "./protocol.ts";

const ENTRY_SIZE = 16;
const PBA_ALIGNMENT = 0x800;
export const MAX_VECTORS = 2048;
/** Of plain MSI (PCI Local Bus 3.0, 6.8.1.3). */
export const MAX_MSI_VECTORS = 32;

/** Table at 0, pending bits behind it at a multiple of 2 KiB; a BAR of a page or more. */
export function placeMsix(vectors: number, bar: number): MsixPlace & { readonly barSize: number } {
  const table = vectors * ENTRY_SIZE;
  const pbaOffset = Math.ceil(table / PBA_ALIGNMENT) * PBA_ALIGNMENT;
  const end = pbaOffset + Math.ceil(vectors / 64) * 8;
  const barSize = Math.max(4096, 2 ** Math.ceil(Math.log2(end)));
  return { vectors, bar, tableOffset: 0, pbaOffset, barSize };
}

/** State of the vectors. */
export interface VectorsRecord {
  readonly version: 1;
  readonly vectors: readonly VectorRecord[];
}

interface VectorRecord {
  /** Place of the eventfd; -1: there is none. */
  readonly fd: number;
  readonly masked: boolean;
  readonly pending: boolean;
}

function readVector(item: RecordReader, fds: ClaimedFds): VectorRecord {
  const fd = fds.claim(item, "fd");
  const masked = item.flag("masked");
  const pending = item.flag("pending");
  if (fd >= 0 && !isEventFd(fd)) item.refuse("fd", "the descriptor is not an eventfd");
  if (pending && !(masked && fd >= 0)) {
    item.refuse("pending", "only a masked vector with an eventfd is pending");
  }
  return { fd, masked, pending };
}

export class MsixVectors {
  readonly count: number;
  /** Interrupt index of the protocol: MSI or MSI-X. */
  readonly irqIndex: number;
  readonly #eventFds: Int32Array;
  readonly #masked: Uint8Array;
  readonly #pending: Uint8Array;

  constructor(count: number, irqIndex: number = IRQ.msix) {
    this.count = count;
    this.irqIndex = irqIndex;
    this.#eventFds = new Int32Array(count).fill(-1);
    this.#masked = new Uint8Array(count);
    this.#pending = new Uint8Array(count);
  }

  /** Sends the interrupt, or makes a masked vector pending. @returns false without an eventfd */
  fire(vector: number): boolean {
    const fd = this.#eventFds[vector];
    if (fd === undefined || fd < 0) {
      // A guest may enable fewer MSI messages than the device has: the others share the first.
      return this.irqIndex === IRQ.msi && vector > 0 && this.fire(0);
    }
    if (this.#masked[vector] === 0) return signalPeer(fd);
    this.#pending[vector] = 1;
    return true;
  }

  /** Sets the eventfd, which it takes over; the previous one is closed. */
  attach(vector: number, fd: number): void {
    this.detach(vector);
    this.#eventFds[vector] = fd;
  }

  detach(vector: number): void {
    const old = this.#eventFds[vector]!;
    if (old >= 0) close(old);
    this.#eventFds[vector] = -1;
    this.#pending[vector] = 0;
  }

  mask(vector: number): void {
    this.#masked[vector] = 1;
  }

  unmask(vector: number): void {
    this.#masked[vector] = 0;
    if (this.#pending[vector] === 0) return;
    this.#pending[vector] = 0;
    this.fire(vector);
  }

  /** Byte `index` of the pending bit array. */
  pendingByte(index: number): number {
    let byte = 0;
    for (let bit = 0; bit < 8; bit++) byte |= (this.#pending[index * 8 + bit] ?? 0) << bit;
    return byte;
  }

  /** Device reset: clears masks and pending bits. Clients do not send eventfds again: they stay. */
  reset(): void {
    this.#masked.fill(0);
    this.#pending.fill(0);
  }

  save(fds: SavedFds): VectorsRecord {
    return {
      version: 1,
      vectors: Array.from(this.#eventFds, (fd, vector) => ({
        fd: fds.add(fd),
        masked: this.#masked[vector] !== 0,
        pending: this.#pending[vector] !== 0,
      })),
    };
  }

  /**
   * Checks a record, for vectors that have no eventfds.
   * @returns the function that restores it, which does not fail; the eventfds are the vectors' then
   * @throws RecordError
   */
  prepare(name: string, value: unknown, fds: ClaimedFds): () => void {
    const vectors = readRecord(name, value, 1, (record) => {
      const list = record.list("vectors", this.count, (item) => readVector(item, fds));
      if (list.length === this.count) return list;
      return record.refuse("vectors", `this device has ${this.count}`);
    });
    return () => {
      for (const [vector, { fd, masked, pending }] of vectors.entries()) {
        this.#eventFds[vector] = fd;
        this.#masked[vector] = masked ? 1 : 0;
        this.#pending[vector] = pending ? 1 : 0;
      }
    };
  }

  /** Closes all eventfds. */
  clear(): void {
    for (let vector = 0; vector < this.count; vector++) this.detach(vector);
    this.reset();
  }
}

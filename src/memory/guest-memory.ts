/**
 * Guest memory as devices see it: translate an address *with its length*, or nothing. Who keeps the table
 * (a vfio-user client's DMA maps, the proxy protocol's memory table, a guest in this very process) does
 * not matter here. Files stay mapped for the life of a connection, so an address that was handed out
 * never dangles, whatever the guest does to its memory map while packets flow.
 */
import { type Mapping, mapPages } from "../os/memory.ts";

/** A file behind guest memory, mapped whole. */
export interface MemoryFile {
  readonly fd: number;
}

export interface MemoryRange {
  /** Guest physical address. */
  readonly address: number;
  /** Bytes. */
  readonly size: number;
  readonly writable: boolean;
  /** null: memory that this process cannot reach (a ROM, or RAM that is not shared). */
  readonly file: MemoryFile | null;
  readonly fileOffset: number;
}

export interface GuestMemory {
  /** Changes with every change of the table: a cached translation holds while this stands still. */
  readonly generation: number;
  /** Sorted by address, never overlapping. */
  readonly ranges: readonly MemoryRange[];
  /**
   * Host virtual address of `length` bytes at guest address `address`; 0 where not all of them are in
   * one range that may be accessed so. Never throws, never allocates: the hot path.
   */
  translate(address: number, length: number, write: boolean): number;
}

/** `translate` for an address in two 32-bit halves, as descriptors hold it. */
export function translateHalves(
  memory: GuestMemory,
  low: number,
  high: number,
  length: number,
  write: boolean,
): number {
  return memory.translate((high >>> 0) * 4294967296 + (low >>> 0), length, write);
}

export const GUEST_PAGE = 4096;

/**
 * Maps guest pages, in the order given, as one contiguous piece of host memory; the caller owns it.
 * @returns null where a page is not writable, file-backed guest memory, or pages are of several files.
 */
export function mapGuestPages(memory: GuestMemory, pages: readonly number[]): Mapping | null {
  let file: MemoryFile | null = null;
  const offsets: number[] = [];
  for (const page of pages) {
    const range = memory.ranges.find((r) => page >= r.address && page - r.address < r.size);
    if (range === undefined || page % GUEST_PAGE !== 0) return null;
    const inside = GUEST_PAGE <= range.size - (page - range.address);
    if (!inside || !range.writable || range.file === null) return null;
    if (file !== null && range.file !== file) return null;
    file = range.file;
    offsets.push(range.fileOffset + (page - range.address));
  }
  return file === null ? null : mapPages(file.fd, offsets, { write: true });
}

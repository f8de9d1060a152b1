/**
 * Guest memory as devices see it: an address is translated *together with its length*. The table
 * comes from a vfio-user client's DMA maps, the proxy protocol's memory table, or a guest in this
 * process. A host address is valid until the table changes, which happens only between turns of the
 * engine's loop: no caller keeps one across turns.
 */

/** A file behind guest memory. */
export interface MemoryFile {
  readonly fd: number;
  /** Equal for descriptors of the same file, also after the file was unmapped and mapped again. */
  readonly id: string;
  /** `mappingUnit` of the file: 4096, or the size of its huge pages. */
  readonly unit: number;
}

export interface MemoryRange {
  /** Guest physical address. */
  readonly address: number;
  /** Bytes. */
  readonly size: number;
  readonly writable: boolean;
  /** null: memory that this process has no access to (a ROM, or RAM that is not shared). */
  readonly file: MemoryFile | null;
  readonly fileOffset: number;
  /** Why `file` is null, for messages; undefined: the VMM did not share the memory. */
  readonly unreachable?: string;
}

export interface GuestMemory {
  /** Changes with every change of the table. */
  readonly generation: number;
  /** Sorted by address, never overlapping. */
  readonly ranges: readonly MemoryRange[];
  /**
   * Host virtual address of `length` bytes at guest address `address`; 0 if they are not all in one
   * range that allows the access (see `pieces.ts` for several ranges). Hot path: never throws,
   * never allocates.
   */
  translate(address: number, length: number, write: boolean): number;
}

/** `translate` for an address in two 32-bit halves, as in descriptors. */
export function translateHalves(
  memory: GuestMemory,
  low: number,
  high: number,
  length: number,
  write: boolean,
): number {
  return memory.translate((high >>> 0) * 4294967296 + (low >>> 0), length, write);
}

/** Index of the last range that begins at or below `address`, -1 if there is none. */
export function indexBelow(ranges: readonly MemoryRange[], address: number): number {
  let low = 0;
  let high = ranges.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (ranges[middle].address <= address) low = middle + 1;
    else high = middle;
  }
  return low - 1;
}

/** Bytes from `address` to the end of the range that it is in; 0 if it is in none. */
export function bytesLeft(ranges: readonly MemoryRange[], address: number): number {
  const index = indexBelow(ranges, address);
  if (index < 0) return 0;
  return Math.max(ranges[index].size - (address - ranges[index].address), 0);
}

/** Says why `translate` refused `[address, +length)`, for messages. */
export function whyRefused(
  memory: GuestMemory,
  address: number,
  length: number,
  write: boolean,
): string {
  for (let at = address; at < address + length; ) {
    const range = memory.ranges[indexBelow(memory.ranges, at)];
    const left = bytesLeft(memory.ranges, at);
    const where = `0x${at.toString(16)}`;
    if (range === undefined || left === 0) return `no memory is mapped at ${where}`;
    if (range.file === null) {
      return `the memory at ${where} ${range.unreachable ?? "is not shared (share=on)"}`;
    }
    if (memory.translate(at, 1, write) === 0) {
      return `the memory at ${where} may not be ${write ? "written" : "read"}`;
    }
    at += left;
  }
  return "its pieces are not whole pages of 4 KiB";
}

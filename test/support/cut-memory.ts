/**
 * For tests: the memory of a `LocalMemory` as a machine with scattered mappings presents it.
 * Consecutive guest pages are never consecutive in this process, so code that takes them for
 * contiguous accesses other bytes.
 */

import type { LocalMemory } from "../../src/guest/memory.ts";
import type { GuestMemory, MemoryFile, MemoryRange } from "../../src/memory/index.ts";
import { type Mapping, mapFile, PAGE } from "../../src/os/memory.ts";

export interface CutOptions {
  /** Each range is a file of its own to the device. */
  readonly files?: boolean;
  /** Page size of a file with huge pages, in bytes. */
  readonly unit?: number;
  /** Index of an unmapped range. */
  readonly hole?: number;
}

export class CutMemory implements GuestMemory {
  generation = 1;
  ranges: MemoryRange[] = [];
  readonly #memory: LocalMemory;
  readonly #hosts: readonly Mapping[];

  constructor(memory: LocalMemory) {
    this.#memory = memory;
    const [{ size }] = memory.ranges;
    this.#hosts = [0, 1].map(() => mapFile(memory.fd, 0, size, { write: true }));
    this.cut([]);
  }

  /** @param at guest addresses at which ranges begin */
  cut(at: readonly number[], { files = false, unit = PAGE, hole = -1 }: CutOptions = {}): void {
    const [whole] = this.#memory.ranges;
    const sorted = [...new Set(at)].filter((a) => a > whole.address).sort((a, b) => a - b);
    const starts = [whole.address, ...sorted];
    const end = whole.address + whole.size;
    this.ranges = starts.map((address, i) => {
      const size = (starts[i + 1] ?? end) - address;
      const file: MemoryFile = { fd: this.#memory.fd, id: files ? `file ${i}` : "file", unit };
      return {
        ...{ address, size, writable: true, fileOffset: address - whole.address },
        file: i === hole ? null : file,
      };
    });
    this.generation++;
  }

  translate(address: number, length: number, _write: boolean): number {
    for (const [i, range] of this.ranges.entries()) {
      const offset = address - range.address;
      if (!(offset >= 0 && length > 0 && length <= range.size - offset)) continue;
      return range.file === null ? 0 : this.#hosts[i % 2].address + range.fileOffset + offset;
    }
    return 0;
  }

  close(): void {
    for (const host of this.#hosts) host.unmap();
  }
}

/**
 * Memory of a guest in this process: a sealed memfd, which the device maps as guest physical memory
 * and the guest accesses through views.
 */
import { LinearMemory } from "../ebpf/index.ts";
import type { GuestMemory, MemoryFile, MemoryRange } from "../memory/index.ts";
import { close } from "../os/fd.ts";
import {
  createMemfd,
  type Mapping,
  mapFile,
  mapPagesOver,
  PAGE,
  restoreMemory,
} from "../os/memory.ts";

/** First guest physical address. Not 0, so that address 0 is never valid. */
const BASE = 0x100000;

export class LocalMemory implements GuestMemory {
  generation = 1;
  readonly fd: number;
  /** The memory of compiled programs: their stack, and contexts. */
  readonly linear: LinearMemory;
  readonly #mapping: Mapping;
  readonly #bytes: Uint8Array;
  readonly #contexts: Uint8Array[] = [];
  readonly #file: MemoryFile;
  #ranges: MemoryRange[];
  #next = 0;
  readonly #released: { readonly address: number; readonly size: number }[] = [];

  /** @param size bytes, rounded up to pages */
  constructor(size: number) {
    const length = Math.ceil(size / PAGE) * PAGE;
    this.fd = createMemfd("bpfhv-guest", length, { seal: true });
    this.#mapping = mapFile(this.fd, 0, length, { write: true });
    this.#bytes = new Uint8Array(this.#mapping.view(0, length));
    // Reserves addresses for each page once. Unused pages take no memory.
    this.linear = new LinearMemory(length + PAGE);
    this.#file = { fd: this.fd, id: "guest", unit: PAGE };
    this.#ranges = [this.#range()];
  }

  get ranges(): readonly MemoryRange[] {
    return this.#ranges;
  }

  translate(address: number, length: number, _write: boolean): number {
    for (const range of this.#ranges) {
      const offset = address - range.address;
      if (offset >= 0 && length > 0 && length <= range.size - offset) {
        return this.#mapping.address + range.fileOffset + offset;
      }
    }
    return 0;
  }

  /**
   * Unmaps all of the memory from the device, or maps it again, as
   * a VMM does when the memory map changes.
   */
  setVisible(visible: boolean): void {
    this.generation++;
    this.#ranges = visible ? [this.#range()] : [];
  }

  #range(): MemoryRange {
    const { length } = this.#mapping;
    return { address: BASE, size: length, writable: true, file: this.#file, fileOffset: 0 };
  }

  /**
   * Allocates `size` bytes and returns their guest physical address.
   * @throws RangeError if none are left
   */
  allocate(size: number, align = 64): number {
    const free = this.#released.findIndex((each) => each.size === size && align <= 64);
    if (free >= 0) return this.#released.splice(free, 1)[0].address;
    const at = Math.ceil(this.#next / align) * align;
    if (at + size > this.#mapping.length)
      throw new RangeError(`the guest's memory is exhausted: ${size} bytes needed`);
    this.#next = at + size;
    return BASE + at;
  }

  /** Gives back what was allocated without an alignment of its own. */
  release(address: number, size: number): void {
    this.#released.push({ address, size });
  }

  /** Returns the guest's view of its memory. @throws RangeError if the range exceeds the memory */
  bytes(address: number, length: number): Uint8Array {
    const at = address - BASE;
    if (!(at >= 0 && length > 0 && length <= this.#bytes.length - at)) {
      throw new RangeError(`[0x${address.toString(16)}, +${length}) is outside the guest's memory`);
    }
    return this.#bytes.subarray(at, at + length);
  }

  /** Maps pages as one contiguous view inside `linear`, as a kernel does with vmalloc. */
  mapContext(pages: readonly number[], length: number): Uint8Array {
    const context = this.linear.allocate(pages.length * PAGE, PAGE);
    const offsets = pages.map((page) => page - BASE);
    mapPagesOver(context, this.fd, offsets);
    this.#contexts.push(context);
    return context.subarray(0, length);
  }

  /** Unmaps the memory. No view may be used any more. */
  close(): void {
    for (const context of this.#contexts) restoreMemory(context);
    this.#mapping.unmap();
    close(this.fd);
  }
}

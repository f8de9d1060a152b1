/** Memory of an interpreted program: a few disjoint regions. Every access is checked. */
import type { HelperMemory } from "./runner.ts";

/** A range of the program's address space, backed by bytes. */
export interface Region {
  /** For messages: "context", "stack". */
  readonly name: string;
  /** The program's address of `bytes[0]`: a multiple of 8, at least 65536, below 2^52. */
  readonly base: number;
  /** Starts at a multiple of 8 of its buffer. */
  readonly bytes: Uint8Array;
  /** True by default. */
  readonly writable?: boolean;
}

// A register plus a 16-bit offset that wraps around 2^64 ends below this, so it hits no region.
const LOWEST_BASE = 0x10000;
const HIGHEST_END = 2 ** 52;

/**
 * One region, prepared for access. Aligned accesses are single accesses of their width (typed array
 * elements), as shared ring words require. Others are assembled from bytes.
 */
export class MappedRegion {
  readonly name: string;
  readonly base: number;
  readonly end: number;
  readonly writable: boolean;
  /** Lowest accessible address, which moves with the frames of the stack. */
  start: number;
  readonly view: DataView;
  readonly u8: Uint8Array;
  readonly u16: Uint16Array;
  readonly i32: Int32Array;
  readonly u64: BigUint64Array;

  constructor(region: Region) {
    const { name, base, bytes } = region;
    if (base % 8 !== 0 || base < LOWEST_BASE || base + bytes.length > HIGHEST_END) {
      throw new RangeError(`region ${name}: base ${base} must be a multiple of 8 in 2^16..2^52`);
    }
    if (bytes.byteOffset % 8 !== 0) {
      throw new RangeError(
        `region ${name}: its bytes must start at a multiple of 8 of their buffer`,
      );
    }
    this.name = name;
    this.base = base;
    this.start = base;
    this.end = base + bytes.length;
    this.writable = region.writable ?? true;
    const { buffer, byteOffset, length } = bytes;
    this.view = new DataView(buffer, byteOffset, length);
    this.u8 = bytes;
    this.u16 = new Uint16Array(buffer, byteOffset, length >> 1);
    this.i32 = new Int32Array(buffer, byteOffset, length >> 2);
    this.u64 = new BigUint64Array(buffer, byteOffset, length >> 3);
  }
}

export class Memory implements HelperMemory {
  readonly regions: readonly MappedRegion[];
  #last: MappedRegion | undefined;

  /** @throws RangeError if regions overlap or are misaligned */
  constructor(regions: readonly Region[]) {
    this.regions = regions.map((r) => new MappedRegion(r));
    const sorted = [...this.regions].sort((a, b) => a.base - b.base);
    sorted.forEach((region, i) => {
      const next = sorted[i + 1];
      if (next !== undefined && region.end > next.base) {
        throw new RangeError(`regions ${region.name} and ${next.name} overlap`);
      }
    });
    this.#last = this.regions[0];
  }

  /** Returns the region that holds all of `address .. address + size`, or undefined. */
  find(address: number, size: number): MappedRegion | undefined {
    const last = this.#last;
    if (last !== undefined && address >= last.start && address + size <= last.end) return last;
    for (const region of this.regions) {
      if (address >= region.start && address + size <= region.end) {
        this.#last = region;
        return region;
      }
    }
    return undefined;
  }

  load(address: bigint, into: Uint8Array): boolean {
    // Exact below 2^53, and above every region otherwise.
    const from = Number(address);
    const region = this.find(from, into.length);
    if (region === undefined) return false;
    const offset = from - region.base;
    for (let i = 0; i < into.length; i++) into[i] = region.u8[offset + i]!;
    return true;
  }

  store(address: bigint, bytes: Uint8Array): boolean {
    const to = Number(address);
    const region = this.find(to, bytes.length);
    if (region === undefined || !region.writable) return false;
    const offset = to - region.base;
    for (let i = 0; i < bytes.length; i++) region.u8[offset + i] = bytes[i]!;
    return true;
  }
}

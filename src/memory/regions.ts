/**
 * Guest memory as a VMM shares it: a sorted table of guest address ranges over memory files. Each file is mapped
 * once, whole; map and unmap only edit the table, so an address that was handed out stays mapped until `prune` or
 * `clear`. One VMM adds and removes ranges (vfio-user), another sends the whole table (bpfhv-proxy: `replace`).
 */
import { EACCES, EEXIST, EFBIG, EINVAL, EMSGSIZE, ENOENT, ENOMEM, OsError } from "../os/errors.ts";
import { close, fstat } from "../os/fd.ts";
import { type Mapping, mapFile, PAGE, shrinkSeal } from "../os/memory.ts";
import type { GuestMemory, MemoryFile, MemoryRange } from "./guest-memory.ts";

/** Addresses beyond this cannot be told apart as numbers; no CPU has more physical address bits than 52. */
const ADDRESS_END = 2 ** 53;
/** Ranges of one VMM: what a vfio-user client may hold where the server announces nothing. */
export const MAX_REGIONS = 65535;
/** Different memory files of one VMM: guest RAM is one to a few. */
const MAX_FILES = 64;

/** A memory file of the VMM, mapped whole. */
export interface RegionFile extends MemoryFile {
  readonly dev: number;
  readonly ino: number;
  readonly mapping: Mapping;
  readonly writable: boolean;
  /** Kept open for mappings of chosen pages (`mapPages`); belongs to the table. */
  readonly fd: number;
}

/** A range of guest memory. */
export interface Region extends MemoryRange {
  readonly readable: boolean;
  /** Where it begins in this process; 0 when the VMM gave no file: then it cannot be used. */
  readonly host: number;
  readonly file: RegionFile | null;
}

export interface RegionRequest {
  readonly address: number;
  readonly size: number;
  readonly offset: number;
  readonly readable: boolean;
  readonly writable: boolean;
}

export type RegionWarning = (code: string, message: string) => void;

/** Refusals are errno values of the reply, not exceptions: the VMM is free to send nonsense. */
export const OK = 0;

export interface RegionTableOptions {
  readonly warn?: RegionWarning;
  /** Ranges that it holds at most. */
  readonly maxRegions?: number;
  /** Addresses, sizes and offsets are multiples of this many bytes. */
  readonly granularity?: number;
}

export class RegionTable implements GuestMemory {
  #ranges: Region[] = [];
  readonly #files: RegionFile[] = [];
  readonly #warn: RegionWarning;
  readonly #maxRegions: number;
  readonly #granularity: number;
  #generation = 0;
  /** Index of the range that answered last; a hint, checked before use. */
  #last = 0;

  constructor(options: RegionTableOptions = {}) {
    this.#warn = options.warn ?? (() => {});
    this.#maxRegions = options.maxRegions ?? MAX_REGIONS;
    this.#granularity = options.granularity ?? PAGE;
  }

  /** Grows with every change of the table: whoever caches a translation compares. */
  get generation(): number {
    return this.#generation;
  }

  /** By guest address; a new array after each change. */
  get ranges(): readonly Region[] {
    return this.#ranges;
  }

  get files(): readonly RegionFile[] {
    return this.#files;
  }

  /**
   * Host address of `[address, +length)`, or 0 when any byte of it is not mapped, has no file, does not lie in the
   * same range, or must not be written. Allocates nothing.
   */
  translate(address: number, length: number, write: boolean): number {
    let range = this.#ranges[this.#last];
    if (range === undefined || address < range.address || address - range.address >= range.size) {
      const index = this.#find(address);
      if (index < 0) return 0;
      this.#last = index;
      range = this.#ranges[index]!;
    }
    const offset = address - range.address;
    if (!(length > 0 && offset >= 0 && length <= range.size - offset)) return 0;
    if (range.host === 0 || !(write ? range.writable : range.readable)) return 0;
    return range.host + offset;
  }

  /** Index of the last range that begins at or below `address`, -1 when there is none. */
  #find(address: number): number {
    let low = 0;
    let high = this.#ranges.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#ranges[middle]!.address <= address) low = middle + 1;
      else high = middle;
    }
    return low - 1;
  }

  /** The range that is exactly `[address, +size)`. */
  exact(address: number, size: number): Region | undefined {
    const range = this.#ranges[this.#find(address)];
    return range?.address === address && range.size === size ? range : undefined;
  }

  /**
   * Adds a range. `fd` is -1 for memory that cannot be shared; otherwise it belongs to the table from now on.
   * @returns OK or an errno value.
   */
  map(request: RegionRequest, fd: number): number {
    const refusal = this.#refuseMap(request);
    if (fd < 0) {
      if (refusal === OK) this.#insert(request, null);
      return refusal;
    }
    if (refusal !== OK) {
      close(fd);
      return refusal;
    }
    const file = this.#fileOf(request, fd);
    if (typeof file === "number") return file;
    if (request.writable && !file.writable) return EACCES;
    this.#insert(request, file);
    return OK;
  }

  #refuseMap({ address, size, offset }: RegionRequest): number {
    if (!(address >= 0 && size > 0 && offset >= 0)) return EINVAL;
    const unit = this.#granularity;
    if (address % unit !== 0 || size % unit !== 0 || offset % unit !== 0) return EINVAL;
    if (size > ADDRESS_END - address || size > ADDRESS_END - offset) return EINVAL;
    if (this.#ranges.length >= this.#maxRegions) return EMSGSIZE;
    const index = this.#find(address);
    const before = this.#ranges[index];
    if (before !== undefined && address - before.address < before.size) return EEXIST;
    const after = this.#ranges[index + 1];
    return after !== undefined && after.address - address < size ? EEXIST : OK;
  }

  /** The mapped file behind `fd`, which is consumed; or an errno value. */
  #fileOf({ offset, size }: RegionRequest, fd: number): RegionFile | number {
    let kept = false;
    try {
      const { dev, ino, size: fileSize } = fstat(fd);
      if (offset + size > fileSize) return EFBIG;
      const known = this.#files.find(
        (file) => file.dev === dev && file.ino === ino && file.mapping.length >= offset + size,
      );
      if (known !== undefined) return known;
      if (this.#files.length >= MAX_FILES) return ENOMEM;
      const file = { dev, ino, fd, ...mapWhole(fd, fileSize) };
      this.#files.push(file);
      kept = true;
      this.#checkSeal(fd, fileSize);
      return file;
    } catch (error) {
      return error instanceof OsError ? error.errno : EINVAL;
    } finally {
      if (!kept) close(fd);
    }
  }

  #checkSeal(fd: number, size: number): void {
    if (shrinkSeal(fd) !== "unsealable") return;
    this.#warn(
      "memory-not-sealed",
      `guest memory (${size} bytes) is in a file that cannot be sealed: whoever shrinks it kills this process; ` +
        "use memory-backend-memfd",
    );
  }

  #insert(request: RegionRequest, file: RegionFile | null): void {
    const { address, size, offset, readable, writable } = request;
    const host = file === null ? 0 : file.mapping.address + offset;
    const range = { address, size, readable, writable, host, file, fileOffset: offset };
    this.#ranges = this.#ranges.toSpliced(this.#find(address) + 1, 0, range);
    this.#generation++;
  }

  /** Takes one range out; the file stays mapped. @returns OK or ENOENT. */
  unmap(address: number, size: number): number {
    const range = this.exact(address, size);
    if (range === undefined) return ENOENT;
    this.#ranges = this.#ranges.filter((other) => other !== range);
    this.#generation++;
    return OK;
  }

  /** Takes every range out. */
  unmapAll(): void {
    if (this.#ranges.length === 0) return;
    this.#ranges = [];
    this.#generation++;
  }

  /**
   * Puts a whole new table in the place of the old one, or, where any part of it is refused, leaves the old one as
   * it was. `fds[i]` belongs to `requests[i]`, and to the table from now on.
   * Files that only the old table used stay mapped until `prune`.
   * @returns OK or an errno value.
   */
  replace(requests: readonly RegionRequest[], fds: readonly number[]): number {
    const before = this.#ranges;
    this.#ranges = [];
    this.#generation++;
    for (const [i, request] of requests.entries()) {
      const refusal = this.map(request, fds[i]!);
      if (refusal === OK) continue;
      for (const fd of fds.slice(i + 1)) close(fd);
      this.#ranges = before;
      this.prune();
      return refusal;
    }
    return OK;
  }

  /** Unmaps and closes the files that no range uses any more: no view of them may be used from here on. */
  prune(): void {
    const used = new Set(this.#ranges.map((range) => range.file));
    for (const file of this.#files.filter((file) => !used.has(file))) release(file);
    const kept = this.#files.filter((file) => used.has(file));
    this.#files.splice(0, this.#files.length, ...kept);
  }

  /** The end of the connection: also unmaps and closes the files. No view of them may be used any more. */
  clear(): void {
    this.unmapAll();
    this.prune();
  }
}

function release(file: RegionFile): void {
  file.mapping.unmap();
  close(file.fd);
}

/** Read and write where the descriptor allows it, else read only. */
function mapWhole(fd: number, size: number): { mapping: Mapping; writable: boolean } {
  try {
    return { mapping: mapFile(fd, 0, size, { write: true }), writable: true };
  } catch (error) {
    if (!(error instanceof OsError) || error.errno !== EACCES) throw error;
    return { mapping: mapFile(fd, 0, size, { write: false }), writable: false };
  }
}

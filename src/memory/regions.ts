/**
 * Guest memory that a VMM shares: a sorted table of guest address ranges in memory files. Each file
 * is mapped once, as a whole, and unmapped with its last range: a translated address does not
 * outlive its range. vfio-user adds and removes single ranges; bpfhv-proxy sends whole tables
 * (`replace`; files stay mapped until `prune`).
 *
 * Descriptors come from a peer. A file that can be sealed against shrinking is a memfd: its calls
 * never block, and once it is sealed its pages stay. Any other file may block without limit (FUSE:
 * fstat, page faults), so sealing precedes every other call, and a file without a seal is not
 * accessed.
 */
import { EACCES, EEXIST, EFBIG, EINVAL, EMSGSIZE, ENOENT, ENOMEM, OsError } from "../os/errors.ts";
import { fdTarget, fstat } from "../os/fd.ts";
import { type Mapping, mapFile, mappingUnit, PAGE, shrinkSeal } from "../os/memory.ts";
import { closePeer } from "../os/peer-close.ts";
import { type GuestMemory, indexBelow, type MemoryFile, type MemoryRange } from "./guest-memory.ts";

/** Numbers are exact below this; CPUs have at most 52 physical address bits. */
export const ADDRESS_END = 2 ** 53;
/** Ranges of one VMM: what a vfio-user client may hold if the server announces nothing. */
export const MAX_REGIONS = 65535;
/** Different memory files of one VMM at a time: QEMU has at most 256 slots for DIMMs, and RAM. */
export const MAX_FILES = 272;

/** A memory file of the VMM, mapped whole. */
export interface RegionFile extends MemoryFile {
  readonly dev: number;
  readonly ino: number;
  readonly mapping: Mapping;
  readonly writable: boolean;
  /** Kept open for mappings of single pages (contexts); belongs to the table. */
  readonly fd: number;
}

/** A range of guest memory. */
export interface Region extends MemoryRange {
  readonly readable: boolean;
  /** Its host address; 0 without a file: then it is not usable. */
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

export const UNSEALED =
  "is in a file that cannot be sealed (use memory-backend-memfd, or --allow-unsealed)";

/** Refusals are errno values for the reply, not exceptions: requests come from a peer. */
export const OK = 0;

export interface RegionTableOptions {
  readonly warn?: RegionWarning;
  /** Uses files that cannot be sealed, too: whoever shrinks one kills this process. */
  readonly allowUnsealed?: boolean;
  /** Maximum number of ranges. */
  readonly maxRegions?: number;
  /** Addresses, sizes and offsets are multiples of this many bytes. */
  readonly granularity?: number;
}

export class RegionTable implements GuestMemory {
  #ranges: Region[] = [];
  readonly #files: RegionFile[] = [];
  readonly #warn: RegionWarning;
  readonly allowUnsealed: boolean;
  /** The warning about memory that cannot be sealed was given. */
  #warned = false;
  readonly maxRegions: number;
  readonly granularity: number;
  #generation = 0;
  /** Index of the last range that was found; a hint, checked before use. */
  #last = 0;

  constructor(options: RegionTableOptions = {}) {
    this.#warn = options.warn ?? (() => {});
    this.allowUnsealed = options.allowUnsealed ?? false;
    this.maxRegions = options.maxRegions ?? MAX_REGIONS;
    this.granularity = options.granularity ?? PAGE;
  }

  /** Grows with every change of the table, to invalidate cached translations. */
  get generation(): number {
    return this.#generation;
  }

  /** Sorted by guest address; a new array after each change. */
  get ranges(): readonly Region[] {
    return this.#ranges;
  }

  get files(): readonly RegionFile[] {
    return this.#files;
  }

  /**
   * Host address of `[address, +length)`; 0 if not all bytes are in one range that has a file and
   * allows the access. Allocates nothing.
   */
  translate(address: number, length: number, write: boolean): number {
    let range = this.#ranges[this.#last];
    if (range === undefined || address < range.address || address - range.address >= range.size) {
      const index = indexBelow(this.#ranges, address);
      if (index < 0) return 0;
      this.#last = index;
      range = this.#ranges[index]!;
    }
    const offset = address - range.address;
    if (!(length > 0 && offset >= 0 && length <= range.size - offset)) return 0;
    if (range.host === 0 || !(write ? range.writable : range.readable)) return 0;
    return range.host + offset;
  }

  /** The range that is exactly `[address, +size)`. */
  exact(address: number, size: number): Region | undefined {
    const range = this.#ranges[indexBelow(this.#ranges, address)];
    return range?.address === address && range.size === size ? range : undefined;
  }

  /**
   * Adds a range. `fd` is -1 for memory that is not shared; otherwise the table takes it over.
   * Memory in a file that cannot be sealed becomes a range that is not usable, with a warning: a
   * VMM exits if a request to map its RAM fails, and its guest needs the VM more than the NIC.
   * @returns OK or an errno value
   */
  map(request: RegionRequest, fd: number): number {
    const refusal = this.#refuseMap(request);
    if (fd < 0) {
      if (refusal === OK) this.#insert(request, null);
      return refusal;
    }
    if (refusal !== OK) {
      closePeer(fd);
      return refusal;
    }
    if (shrinkSeal(fd) === "unsealable") {
      // The link in /proc tells files from pipes, sockets and eventfds without a file system call.
      const isFile = fdTarget(fd).startsWith("/");
      if (!isFile || !this.#mayTrust(request, fd)) {
        closePeer(fd);
        if (isFile) this.#insert(request, null, UNSEALED);
        return isFile ? OK : EINVAL;
      }
    }
    const file = this.#fileOf(request, fd);
    if (typeof file === "number") return file;
    this.#insert(request, file);
    return OK;
  }

  /** Warns of a file that cannot be sealed, once. @returns true if it is used regardless */
  #mayTrust({ address, size }: RegionRequest, fd: number): boolean {
    if (!this.#warned) {
      this.#warned = true;
      const memory = `guest memory at 0x${address.toString(16)} (${size} bytes, ${fdTarget(fd)})`;
      this.#warn(
        "memory-not-sealed",
        this.allowUnsealed
          ? `${memory} cannot be sealed: whoever shrinks that file kills this process`
          : `${memory} is not used, because whoever shrinks that file would kill this process: ` +
              "give QEMU a memory-backend-memfd, which can be sealed, or use --allow-unsealed",
      );
    }
    return this.allowUnsealed;
  }

  #refuseMap({ address, size, offset }: RegionRequest): number {
    if (!(address >= 0 && size > 0 && offset >= 0)) return EINVAL;
    const unit = this.granularity;
    if (address % unit !== 0 || size % unit !== 0 || offset % unit !== 0) return EINVAL;
    if (size > ADDRESS_END - address || size > ADDRESS_END - offset) return EINVAL;
    if (this.#ranges.length >= this.maxRegions) return EMSGSIZE;
    const index = indexBelow(this.#ranges, address);
    const before = this.#ranges[index];
    if (before !== undefined && address - before.address < before.size) return EEXIST;
    const after = this.#ranges[index + 1];
    return after !== undefined && after.address - address < size ? EEXIST : OK;
  }

  /** Maps the file of `fd`, which it takes over. @returns an errno value if it is refused */
  #fileOf({ offset, size, writable }: RegionRequest, fd: number): RegionFile | number {
    let kept = false;
    try {
      const { dev, ino, size: fileSize } = fstat(fd);
      if (offset + size > fileSize) return EFBIG;
      const known = this.#files.find(
        (file) => file.dev === dev && file.ino === ino && file.mapping.length >= offset + size,
      );
      if (known !== undefined) return writable && !known.writable ? EACCES : known;
      if (this.#files.length >= MAX_FILES) return ENOMEM;
      const unit = mappingUnit(fd);
      const file = { dev, ino, id: `${dev}:${ino}`, unit, fd, ...mapWhole(fd, fileSize) };
      if (writable && !file.writable) {
        file.mapping.unmap();
        return EACCES;
      }
      this.#files.push(file);
      kept = true;
      return file;
    } catch (error) {
      return error instanceof OsError ? error.errno : EINVAL;
    } finally {
      if (!kept) closePeer(fd);
    }
  }

  #insert(request: RegionRequest, file: RegionFile | null, unreachable?: string): void {
    const { address, size, offset, readable, writable } = request;
    const host = file === null ? 0 : file.mapping.address + offset;
    const range = { address, size, readable, writable, host, file, fileOffset: offset };
    const index = indexBelow(this.#ranges, address) + 1;
    const why = unreachable === undefined ? {} : { unreachable };
    this.#ranges = this.#ranges.toSpliced(index, 0, { ...range, ...why });
    this.#generation++;
  }

  /** The ranges in `[address, +size)`; none if one of them is only partly inside. */
  wholeIn(address: number, size: number): Region[] {
    const found: Region[] = [];
    if (!(size > 0)) return found;
    for (let i = Math.max(indexBelow(this.#ranges, address), 0); i < this.#ranges.length; i++) {
      const range = this.#ranges[i];
      const before = address - range.address;
      if (-before >= size) break;
      if (before >= range.size) continue;
      if (before > 0 || range.size - before > size) return [];
      found.push(range);
    }
    return found;
  }

  /**
   * Removes the ranges in `[address, +size)`, and unmaps each file with its last range. One request
   * may cover any number of whole ranges, as with VFIO's type 1: an IOMMU invalidates many pages at
   * once. @returns OK; ENOENT if there are no ranges, or one is only partly inside
   */
  unmap(address: number, size: number): number {
    const gone = this.wholeIn(address, size);
    if (gone.length === 0) return ENOENT;
    const first = this.#ranges.indexOf(gone[0]);
    this.#ranges = this.#ranges.toSpliced(first, gone.length);
    this.#generation++;
    // Each file once: unmapping scans all ranges that are left.
    for (const file of new Set(gone.map((range) => range.file))) {
      if (file !== null) this.#letGo(file);
    }
    return OK;
  }

  /** Removes every range, and unmaps all files. */
  unmapAll(): void {
    if (this.#ranges.length > 0) this.#generation++;
    this.#ranges = [];
    this.prune();
  }

  /** Unmaps and closes a file that has no range. */
  #letGo(file: RegionFile): void {
    const index = this.#files.indexOf(file);
    if (index < 0 || this.#ranges.some((range) => range.file === file)) return;
    this.#files.splice(index, 1);
    release(file);
  }

  /**
   * Replaces the whole table; if a part of the new one is refused, the old one stays. `fds[i]`
   * belongs to `requests[i]`; the table takes all of them over. Files that only the old table used
   * stay mapped until `prune`.
   * @returns OK or an errno value
   */
  replace(requests: readonly RegionRequest[], fds: readonly number[]): number {
    const before = this.#ranges;
    this.#ranges = [];
    this.#generation++;
    for (const [i, request] of requests.entries()) {
      const refusal = this.map(request, fds[i]!);
      if (refusal === OK) continue;
      for (const fd of fds.slice(i + 1)) closePeer(fd);
      this.#ranges = before;
      this.prune();
      return refusal;
    }
    return OK;
  }

  /** Unmaps and closes the files that no range uses. Addresses in them become invalid. */
  prune(): void {
    const used = new Set(this.#ranges.map((range) => range.file));
    for (const file of this.#files.filter((file) => !used.has(file))) release(file);
    const kept = this.#files.filter((file) => used.has(file));
    this.#files.splice(0, this.#files.length, ...kept);
  }

  /**
   * Fills an empty table with mapped files and sorted ranges, which the caller has checked.
   */
  adopt(files: readonly RegionFile[], ranges: readonly Region[]): void {
    if (this.#files.length > 0 || this.#ranges.length > 0) throw new Error("the table is in use");
    this.#files.push(...files);
    this.#ranges = [...ranges];
    this.#generation++;
  }

  /** Ends the connection: removes every range, and warns the next VMM again. */
  clear(): void {
    this.unmapAll();
    this.#warned = false;
  }
}

function release(file: RegionFile): void {
  file.mapping.unmap();
  closePeer(file.fd);
}

/**
 * Maps a file for reading and writing, or only for reading if its descriptor does not allow more.
 */
export function mapWhole(fd: number, size: number): { mapping: Mapping; writable: boolean } {
  try {
    return { mapping: mapFile(fd, 0, size, { write: true }), writable: true };
  } catch (error) {
    if (!(error instanceof OsError) || error.errno !== EACCES) throw error;
    return { mapping: mapFile(fd, 0, size, { write: false }), writable: false };
  }
}

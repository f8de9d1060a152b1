/** Memory files and mappings. Lengths and offsets are bytes; addresses are plain numbers. */
import { fstatSync, writeSync } from "node:fs";
import { check, EFBIG, EINVAL, errnoName, OsError } from "./errors.ts";
import { forgetMapping, recordMapping } from "./ledger.ts";
import * as libc from "./libc.ts";

export const PAGE = 4096;
/** Longest view: Node 20 aborts above 4 GiB, and byte indices below 2 GiB stay small integers. */
export const MAX_VIEW = 2 ** 30;

const MFD_CLOEXEC = 1;
const MFD_ALLOW_SEALING = 2;
const MFD_HUGETLB = 4;
const F_ADD_SEALS = 1033;
const F_GET_SEALS = 1034;
const F_SEAL_SHRINK = 2;
const F_SEAL_GROW = 4;

const PROT_NONE = 0;
const PROT_READ = 1;
const PROT_WRITE = 2;
const MAP_SHARED = 0x01;
const MAP_PRIVATE = 0x02;
const MAP_FIXED = 0x10;
const MAP_ANONYMOUS = 0x20;
const MAP_NORESERVE = 0x4000;

/**
 * Creates a memory file of `size` bytes. `seal` fixes its size. `huge` allocates it from the
 * kernel's default huge pages, of which enough must be reserved (vm.nr_hugepages).
 */
export function createMemfd(
  name: string,
  size: number,
  options: { seal?: boolean; huge?: boolean } = {},
): number {
  const flags = MFD_CLOEXEC | MFD_ALLOW_SEALING | (options.huge ? MFD_HUGETLB : 0);
  const fd = check(libc.memfdCreate(name, flags), "memfd_create", name);
  try {
    check(libc.ftruncate(fd, size), "ftruncate", `${name} to ${size} bytes`);
    if (options.seal) {
      check(libc.fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW), "fcntl(F_ADD_SEALS)", name);
    }
  } catch (error) {
    libc.close(fd);
    throw error;
  }
  return fd;
}

/** Creates a memory file with this content, positioned at its start. */
export function createFileMemfd(name: string, content: Uint8Array): number {
  const fd = createMemfd(name, 0);
  try {
    for (let at = 0; at < content.length; )
      at += writeSync(fd, content, at, content.length - at, at);
  } catch (error) {
    libc.close(fd);
    throw error;
  }
  return fd;
}

/**
 * Prevents every process from shrinking the file under our mapping, which would end
 * this process with SIGBUS. "unsealable" if it is not a memfd that allows sealing: the
 * caller then trusts every holder of the file.
 */
export function shrinkSeal(fd: number): "sealed" | "applied" | "unsealable" {
  const seals = libc.fcntl(fd, F_GET_SEALS, 0);
  if (seals < 0) return "unsealable";
  if (seals & F_SEAL_SHRINK) return "sealed";
  return libc.fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK) === 0 ? "applied" : "unsealable";
}

/** A range of mapped memory. Its only owner unmaps it when no view of it is in use. */
export class Mapping {
  readonly address: number;
  readonly length: number;
  #mapped = true;

  constructor(address: number, length: number) {
    this.address = address;
    this.length = length;
  }

  /**
   * Returns a view of the memory itself, at most 1 GiB. An access after `unmap` kills the process:
   * the owner unmaps only after every view is dropped.
   * @throws OsError EINVAL if the range is not inside the mapping, or the mapping is unmapped
   */
  view(offset: number, length: number): ArrayBuffer {
    const inside =
      Number.isSafeInteger(offset) &&
      Number.isSafeInteger(length) &&
      offset >= 0 &&
      length > 0 &&
      length <= MAX_VIEW &&
      length <= this.length - offset;
    if (!inside || !this.#mapped) {
      const why = this.#mapped ? "not inside the mapping, or above 1 GiB" : "already unmapped";
      throw new OsError("view", `[${offset}, +${length}) of ${this.length}`, EINVAL, "", why);
    }
    return libc.viewAt(this.address + offset, length);
  }

  /** Unmaps the range. A second call does nothing. */
  unmap(): void {
    if (!this.#mapped) return;
    this.#mapped = false;
    forgetMapping(this.address);
    libc.munmap(this.address, this.length);
  }
}

function map(
  at: number,
  length: number,
  protection: number,
  flags: number,
  fd: number,
  offset: number,
): number {
  const object = fd < 0 ? `${length} bytes` : `${length} bytes at ${offset} of fd ${fd}`;
  if (!Number.isSafeInteger(length) || length <= 0) {
    throw new OsError("mmap", object, EINVAL, "ask for a positive number of bytes");
  }
  const address = libc.mmap(at, length, protection, flags, fd, offset);
  if (address >= libc.MAP_FAILED / 2) {
    const number = libc.errno();
    const hint = errnoName(number) === "ENOMEM" ? "free memory or raise vm.max_map_count" : "";
    throw new OsError("mmap", object, number, hint);
  }
  if ((flags & MAP_FIXED) === 0) recordMapping(address, length);
  return address;
}

function protectionOf(write: boolean): number {
  return write ? PROT_READ | PROT_WRITE : PROT_READ;
}

/** Refuses a range past the end of the file: it can be mapped, but an access kills the process. */
function checkInsideFile(fd: number, offset: number, length: number): void {
  const stat = fstatSync(fd);
  if (!stat.isFile()) return;
  if (offset >= 0 && length <= stat.size - offset) return;
  throw new OsError(
    "mmap",
    `[${offset}, +${length}) of fd ${fd}`,
    EFBIG,
    "map no more than the file holds",
    `the file has only ${stat.size} bytes`,
  );
}

/** Maps part of a file, shared. `offset` is a multiple of the page size. */
export function mapFile(
  fd: number,
  offset: number,
  length: number,
  options: { write: boolean },
): Mapping {
  checkInsideFile(fd, offset, length);
  return new Mapping(map(0, length, protectionOf(options.write), MAP_SHARED, fd, offset), length);
}

/** Maps zeroed private memory. */
export function mapAnonymous(length: number): Mapping {
  const flags = MAP_PRIVATE | MAP_ANONYMOUS;
  return new Mapping(map(0, length, PROT_READ | PROT_WRITE, flags, -1, 0), length);
}

/** Reserves addresses without memory behind them: an access kills the process. */
export function reserveAddresses(length: number): number {
  return map(0, length, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
}

/**
 * Maps part of a file over addresses that the caller owns. `length` is a multiple of `mappingUnit`.
 */
export function mapFileOver(at: number, length: number, fd: number, offset: number): void {
  map(at, length, protectionOf(true), MAP_SHARED | MAP_FIXED, fd, offset);
}

/** Unmaps the memory behind addresses that the caller owns. They stay reserved. */
export function uncover(at: number, length: number): void {
  const flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED;
  map(at, length, PROT_NONE, flags, -1, 0);
}

/**
 * Maps the file's pages, in the given order, over the memory of `view`, which is page-aligned and
 * belongs to a WebAssembly memory: compiled code then works on the file. Call `restoreMemory`
 * before the file is closed.
 */
export function mapPagesOver(view: Uint8Array, fd: number, fileOffsets: readonly number[]): void {
  for (const offset of fileOffsets) checkInsideFile(fd, offset, PAGE);
  if (view.length !== fileOffsets.length * PAGE) {
    const object = `${fileOffsets.length} pages over ${view.length} bytes`;
    throw new OsError("mmap", object, EINVAL, "give a page of memory for each");
  }
  mapRuns(pageAddress(view), fd, fileOffsets, protectionOf(true));
}

/**
 * Maps zeroed memory over `view`. The addresses still belong to the WebAssembly memory, which frees
 * them, so they are not unmapped.
 */
export function restoreMemory(view: Uint8Array): void {
  const flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
  map(pageAddress(view), view.length, PROT_READ | PROT_WRITE, flags, -1, 0);
}

function pageAddress(view: Uint8Array): number {
  const address = libc.addressOf(view);
  if (address % PAGE === 0 && view.length % PAGE === 0) return address;
  throw new OsError("mmap", `over ${view.length} bytes`, EINVAL, "begin and end on pages");
}

/** Replaces parts of a reservation. Pages that are adjacent in the file take one call. */
function mapRuns(reserved: number, fd: number, offsets: readonly number[], prot: number): void {
  for (let start = 0, end = 0; start < offsets.length; start = end) {
    end = start + 1;
    while (end < offsets.length && offsets[end] === offsets[end - 1]! + PAGE) end++;
    const at = reserved + start * PAGE;
    map(at, (end - start) * PAGE, prot, MAP_SHARED | MAP_FIXED, fd, offsets[start]!);
  }
}

/** Copies bytes between addresses that the caller guarantees. Cheaper than making views of them. */
export function copyBytes(to: number, from: number, length: number): void {
  libc.memcpy(to, from, length);
}

/** Fills `bytes` from memory that the caller guarantees. */
export function copyFromAddress(bytes: Uint8Array, from: number): void {
  libc.copyOut(bytes, from);
}

/** Copies `bytes` to memory that the caller guarantees. */
export function copyToAddress(to: number, bytes: Uint8Array): void {
  libc.copyIn(to, bytes);
}

/**
 * Returns a view of addresses that may be unmapped in part: an access to bytes without a mapping
 * kills the process. Costs what `libc.viewAt` says.
 */
export function viewOfAddresses(address: number, length: number): ArrayBuffer {
  return libc.viewAt(address, length);
}

/** Returns the number of views made in this thread so far (`libc.viewAt`). */
export function viewsMade(): number {
  return libc.views.made;
}

/** `f_type` of hugetlbfs, which also holds memfds with huge pages. */
const HUGETLBFS_MAGIC = 0x958458f6;
/** struct statfs: `f_type` u64, `f_bsize` u64, and less than 120 bytes in all. */
const F_BSIZE = 8;

/**
 * Returns the unit that offsets, addresses and lengths of the file's mappings
 * are multiples of: PAGE, or the size of its huge pages. The kernel rounds a
 * shorter mapping up, over what follows it.
 * @throws OsError
 */
export function mappingUnit(fd: number): number {
  check(libc.fstatfs(fd, libc.STRUCT_ADDRESS), "fstatfs", `fd ${fd}`);
  const { scratch } = libc;
  if (scratch.getUint32(libc.STRUCT_OFFSET, true) !== HUGETLBFS_MAGIC) return PAGE;
  return scratch.getUint32(libc.STRUCT_OFFSET + F_BSIZE, true);
}

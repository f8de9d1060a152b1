/**
 * Buffers, tables and contexts that cross ranges of guest memory: two mappings of an IOMMU, two
 * memory backends, a DIMM next to the first RAM. `translate` takes one range; these functions take
 * one piece after the other. Walks are bounded by the length, which the caller has checked.
 */
import { copyBytes, copyFromAddress, copyToAddress } from "../os/memory.ts";
import { bytesLeft, type GuestMemory, indexBelow, type MemoryFile } from "./guest-memory.ts";

/** Consecutive bytes of a file. */
export interface FileRun extends RunPlace {
  readonly file: MemoryFile;
  readonly offset: number;
  readonly length: number;
}

/** Host address of `[address, +length)`; 0 if its pieces are not contiguous in host memory. */
export function contiguousHost(
  memory: GuestMemory,
  address: number,
  length: number,
  write: boolean,
): number {
  let first = 0;
  for (let done = 0; done < length; ) {
    const part = Math.min(bytesLeft(memory.ranges, address + done), length - done);
    const host = part > 0 ? memory.translate(address + done, part, write) : 0;
    if (done === 0) first = host;
    if (host === 0 || host !== first + done) return 0;
    done += part;
  }
  return first;
}

/** @returns true if every byte of `[address, +length)` is memory that allows the access */
export function isReachable(
  memory: GuestMemory,
  address: number,
  length: number,
  write: boolean,
): boolean {
  if (!(length > 0)) return false;
  for (let done = 0; done < length; ) {
    const part = Math.min(bytesLeft(memory.ranges, address + done), length - done);
    if (part <= 0 || memory.translate(address + done, part, write) === 0) return false;
    done += part;
  }
  return true;
}

/** Copies `[address, +length)`, which `isReachable`, to a host address. */
export function gatherPieces(
  memory: GuestMemory,
  address: number,
  length: number,
  to: number,
): void {
  for (let done = 0; done < length; ) {
    const part = Math.min(bytesLeft(memory.ranges, address + done), length - done);
    copyBytes(to + done, memory.translate(address + done, part, false), part);
    done += part;
  }
}

/** Copies from a host address to `[address, +length)`, which `isReachable`. */
export function scatterPieces(
  memory: GuestMemory,
  address: number,
  length: number,
  from: number,
): void {
  for (let done = 0; done < length; ) {
    const part = Math.min(bytesLeft(memory.ranges, address + done), length - done);
    copyBytes(memory.translate(address + done, part, true), from + done, part);
    done += part;
  }
}

/** Reads each byte once. @returns false, and reads nothing, if not all of them may be read */
export function readGuest(memory: GuestMemory, address: number, bytes: Uint8Array): boolean {
  if (!isReachable(memory, address, bytes.length, false)) return false;
  for (let done = 0; done < bytes.length; ) {
    const part = Math.min(bytesLeft(memory.ranges, address + done), bytes.length - done);
    const host = memory.translate(address + done, part, false);
    copyFromAddress(bytes.subarray(done, done + part), host);
    done += part;
  }
  return true;
}

/** Writes to guest memory. @returns false, and writes nothing, if not all may be written */
export function writeGuest(memory: GuestMemory, address: number, bytes: Uint8Array): boolean {
  if (!isReachable(memory, address, bytes.length, true)) return false;
  for (let done = 0; done < bytes.length; ) {
    const part = Math.min(bytesLeft(memory.ranges, address + done), bytes.length - done);
    const host = memory.translate(address + done, part, true);
    copyToAddress(host, bytes.subarray(done, done + part));
    done += part;
  }
  return true;
}

/**
 * Finds `[address, +length)` in the files behind guest memory. Adjacent runs of a file are merged.
 * @returns null if not all of it may be written
 */
export function fileRuns(memory: GuestMemory, address: number, length: number): FileRun[] | null {
  const runs: FileRun[] = [];
  return addRuns(runs, memory, address, length) ? runs : null;
}

/** Adds the runs of `[address, +length)`. @returns false if not all of it may be written */
export function addRuns(
  runs: FileRun[],
  memory: GuestMemory,
  address: number,
  length: number,
): boolean {
  if (!isReachable(memory, address, length, true)) return false;
  for (let done = 0; done < length; ) {
    const range = memory.ranges[indexBelow(memory.ranges, address + done)];
    const { file } = range;
    if (file === null) return false;
    const inRange = address + done - range.address;
    const offset = range.fileOffset + inRange;
    const part = Math.min(range.size - inRange, length - done);
    const last = runs[runs.length - 1];
    if (last !== undefined && last.file.id === file.id && last.offset + last.length === offset) {
      runs[runs.length - 1] = { ...last, length: last.length + part };
    } else runs.push({ file, offset, length: part });
    done += part;
  }
  return true;
}

/** Where a run is, without the means to map it. */
export interface RunPlace {
  readonly file: { readonly id: string };
  readonly offset: number;
  readonly length: number;
}

/** @returns true if both are the same bytes of the same files */
export function sameRuns(a: readonly RunPlace[], b: readonly RunPlace[]): boolean {
  return (
    a.length === b.length &&
    a.every(
      ({ file, offset, length }, i) =>
        file.id === b[i].file.id && offset === b[i].offset && length === b[i].length,
    )
  );
}

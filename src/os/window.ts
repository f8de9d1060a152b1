/**
 * Windows: reserved addresses with one permanent view, into which parts of files are mapped. A view
 * costs memory that a blocked event loop never frees (see `viewAt`), so windows are reused: their
 * number is the largest that was ever in use at the same time.
 */
import * as libc from "./libc.ts";
import { mapFileOver, PAGE, reserveAddresses, uncover } from "./memory.ts";

export class Window {
  readonly address: number;
  readonly length: number;
  /** Alignment of its address. */
  readonly unit: number;
  /** The whole window. An access to bytes without a mapping kills the process. */
  readonly buffer: ArrayBuffer;

  constructor(address: number, length: number, unit: number) {
    this.address = address;
    this.length = length;
    this.unit = unit;
    this.buffer = libc.viewAt(address, length);
  }

  /**
   * Maps `length` bytes of a file at `at`, shared and writable. All three numbers are multiples of
   * the file's `mappingUnit`, which is at most `unit`.
   * @throws OsError; RangeError if the range exceeds the window
   */
  map(at: number, length: number, fd: number, offset: number): void {
    if (!(at >= 0 && length > 0 && length <= this.length - at)) {
      throw new RangeError(`[${at}, +${length}) is not inside a window of ${this.length} bytes`);
    }
    mapFileOver(this.address + at, length, fd, offset);
  }
}

/** Two huge pages of 1 GiB. Node 20 aborts above 4 GiB. */
const MAX_WINDOW = 2 ** 31;

/** Unused windows, by length and unit. */
const free = new Map<string, Window[]>();

function freeOf(length: number, unit: number): Window[] {
  const key = `${length}/${unit}`;
  let windows = free.get(key);
  if (windows === undefined) {
    windows = [];
    free.set(key, windows);
  }
  return windows;
}

/**
 * @param length required bytes, rounded up to a power of two of units
 * @param unit alignment, a power of two
 * @returns an empty window; null if it would exceed 2 GiB
 * @throws OsError
 */
export function takeWindow(length: number, unit = PAGE): Window | null {
  const size = unit * 2 ** Math.ceil(Math.log2(Math.max(length, unit) / unit));
  if (size > MAX_WINDOW) return null;
  return freeOf(size, unit).pop() ?? newWindow(size, unit);
}

function newWindow(size: number, unit: number): Window {
  // Reserved once per window and never released. The slack takes addresses only.
  const reserved = reserveAddresses(unit === PAGE ? size : size + unit);
  return new Window(Math.ceil(reserved / unit) * unit, size, unit);
}

/**
 * Unmaps everything in the window and returns it to the pool. Its view must not be used any more.
 */
export function giveWindow(window: Window): void {
  uncover(window.address, window.length);
  freeOf(window.length, window.unit).push(window);
}

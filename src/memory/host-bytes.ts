/**
 * Reads the first bytes of a packet at a host address, without a native call for each packet (some
 * 300 ns): views of whole windows of addresses. A window may have addresses without memory. So only
 * bytes that the caller guarantees are read, as with `copyBytes`; then nothing has to follow the
 * guest's memory map, and a view made once serves whatever is mapped there later.
 */
import { copyBytes, mapAnonymous, viewOfAddresses } from "../os/memory.ts";

/** Bytes of a window, from a multiple of that on. */
const WINDOW = 2 ** 30;
/** A power of two. A guest's RAM is mapped contiguously: other windows rarely share a slot. */
const SLOTS = 64;
/** A blocked event loop frees no view: above this, bytes are copied. */
const MAX_VIEWS = 256;
/** Longest run of bytes. */
export const HEAD_BYTES = 128;

const windows = new Int32Array(SLOTS).fill(-1);
const views: Uint8Array[] = [];
let made = 0;

const COPY_MAPPING = mapAnonymous(HEAD_BYTES);
const COPY = new Uint8Array(COPY_MAPPING.view(0, HEAD_BYTES));

/** Where `find` found the bytes: one for each thread. */
export class HostBytes {
  bytes: Uint8Array = COPY;
  at = 0;

  /** Finds `length` bytes at a host address, at most HEAD_BYTES: then `bytes[at]` is the first. */
  find(address: number, length: number): void {
    const window = Math.trunc(address / WINDOW);
    const at = address - window * WINDOW;
    const slot = window & (SLOTS - 1);
    if (at + length > WINDOW || (windows[slot] !== window && !makeView(window, slot))) {
      copyBytes(COPY_MAPPING.address, address, length);
      this.bytes = COPY;
      this.at = 0;
    } else {
      this.bytes = views[slot];
      this.at = at;
    }
  }
}

/** @returns false if there are too many views */
function makeView(window: number, slot: number): boolean {
  if (made === MAX_VIEWS) return false;
  made++;
  views[slot] = new Uint8Array(viewOfAddresses(window * WINDOW, WINDOW));
  windows[slot] = window;
  return true;
}

export const hostBytes: HostBytes = new HostBytes();

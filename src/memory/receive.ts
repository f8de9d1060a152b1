/** Copies of received packets. */
import { copyBytes } from "../os/memory.ts";
import { type Batch, FILTERED_OUT } from "./batch.ts";

/**
 * Copies a packet of `length` bytes, without metadata, from native memory into the free segments of
 * a batch whose `nextBuffer` is not 0.
 * @returns false if the guest has no room: the caller counts it
 */
export function receiveFrom(batch: Batch, address: number, length: number): boolean {
  if (length > batch.nextBuffer()) return false;
  const p = copyReceived(batch, address, length);
  if (p !== FILTERED_OUT) batch.clearMetadata(p);
  return true;
}

/** The same, with room; the caller sets metadata. @returns as `endReceived` */
export function copyReceived(batch: Batch, address: number, length: number): number {
  let at = 0;
  for (let s = batch.used; at < length; s++) {
    const part = Math.min(batch.size[s], length - at);
    copyBytes(batch.address[s], address + at, part);
    at += part;
  }
  return batch.endReceived(length);
}

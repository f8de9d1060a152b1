/** What ports in this process share: counters, and packets copied out of and into a batch. */
import { allowsMetadata, type Batch } from "../memory/index.ts";
import { copyBytes, copyFromAddress, copyToAddress } from "../os/memory.ts";
import type { Port } from "./port.ts";

/** A port that takes every packet, gives none, and is never in the way: to be extended. */
export abstract class BasePort implements Port {
  abstract readonly name: string;
  readonly fd: number = -1;
  linkUp = true;
  sendBlocked = false;
  receiveDrained = true;
  dropped = 0;
  tooLong = 0;
  failures = 0;
  protected offloads = 0;
  protected notice = "";

  abstract send(batch: Batch): number;
  abstract receive(batch: Batch): void;

  setReceiveOffloads(offloads: number): void {
    this.offloads = offloads;
  }

  discard(): void {}

  takeNotice(): string {
    const { notice } = this;
    this.notice = "";
    return notice;
  }

  close(): void {}
}

/** Copies packet p of the batch. */
export function packetBytes(batch: Batch, p: number): Uint8Array {
  const bytes = new Uint8Array(batch.length[p]);
  let at = 0;
  for (let s = batch.first[p]; s < batch.first[p + 1]; s++) {
    const part = Math.min(batch.size[s], bytes.length - at);
    if (part > 0) copyFromAddress(bytes.subarray(at, at + part), batch.address[s]);
    at += part;
  }
  return bytes;
}

/** The metadata fields of a packet, where it has any. */
export interface PacketMetadata {
  readonly flags: number;
  readonly gsoType: number;
  readonly hdrLen: number;
  readonly gsoSize: number;
  readonly csumStart: number;
  readonly csumOffset: number;
}

/** The metadata of packet p; the batch's device knows metadata. */
export function metadataOf(batch: Batch, p: number): PacketMetadata {
  return {
    flags: batch.flags[p],
    gsoType: batch.gsoType[p],
    hdrLen: batch.hdrLen[p],
    gsoSize: batch.gsoSize[p],
    csumStart: batch.csumStart[p],
    csumOffset: batch.csumOffset[p],
  };
}

/** Sets the metadata of packet p; null: nothing to say of it. */
export function setMetadata(batch: Batch, p: number, metadata: PacketMetadata | null): void {
  batch.flags[p] = metadata?.flags ?? 0;
  batch.gsoType[p] = metadata?.gsoType ?? 0;
  batch.hdrLen[p] = metadata?.hdrLen ?? 0;
  batch.gsoSize[p] = metadata?.gsoSize ?? 0;
  batch.csumStart[p] = metadata?.csumStart ?? 0;
  batch.csumOffset[p] = metadata?.csumOffset ?? 0;
}

/** @returns the bytes that one packet may have in the batch's free segments */
export function freeBytes(batch: Batch): number {
  if (batch.room === 0) return batch.size[batch.used];
  let free = 0;
  for (let s = batch.used; s < batch.segments && free < batch.maxPacket; s++) free += batch.size[s];
  return Math.min(free, batch.maxPacket);
}

/**
 * Copies a packet into the batch's free segments, where the batch can receive one.
 * @returns false if the guest has not granted its offloads or has
 * no room: then it is the caller's to count
 */
export function receiveCopy(
  batch: Batch,
  packet: Uint8Array,
  granted = 0,
  metadata: PacketMetadata | null = null,
): boolean {
  if (packet.length > freeBytes(batch)) return false;
  if (metadata !== null && !allowsMetadata(granted, metadata.flags, metadata.gsoType)) return false;
  let at = 0;
  for (let s = batch.used; at < packet.length; s++) {
    const part = packet.subarray(at, at + batch.size[s]);
    if (part.length > 0) copyToAddress(batch.address[s], part);
    at += part.length;
  }
  const p = batch.endReceived(packet.length);
  if (batch.metadata) setMetadata(batch, p, metadata);
  return true;
}

/**
 * Copies a packet of `length` bytes, without metadata, from native
 * memory into the batch's free segments.
 * @returns false if the guest has no room: then it is the caller's to count
 */
export function receiveFrom(batch: Batch, address: number, length: number): boolean {
  if (length > freeBytes(batch)) return false;
  let at = 0;
  for (let s = batch.used; at < length; s++) {
    const part = Math.min(batch.size[s], length - at);
    copyBytes(batch.address[s], address + at, part);
    at += part;
  }
  const p = batch.endReceived(length);
  if (batch.metadata) setMetadata(batch, p, null);
  return true;
}

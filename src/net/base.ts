/** What ports of this process share: counters, and copies of packets out of and into a batch. */
import { allowsMetadata, type Batch, FILTERED_OUT, type PacketMetadata } from "../memory/index.ts";
import { copyFromAddress, copyToAddress } from "../os/memory.ts";
import type { Port } from "./port.ts";

/** Base of ports: the state that the engine reads, with defaults that never block. */
export abstract class BasePort implements Port {
  abstract readonly name: string;
  readonly fd: number = -1;
  linkUp = true;
  sendBlocked = false;
  readonly sendHeldMs: number = 0;
  readonly receiveHeldMs: number = 0;
  receiveDrained = true;
  dropped = 0;
  tooLong = 0;
  failures = 0;
  protected offloads = 0;
  protected notice = "";

  abstract send(batch: Batch): number;
  abstract receive(batch: Batch): void;

  setReceiveOffloads(offloads: number, accepted = offloads): void {
    this.offloads = accepted;
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

/**
 * Copies a packet into the free segments of a batch whose `nextBuffer` is not 0.
 * @param granted OFFLOAD_* that the guest takes
 * @param metadata null: the packet needs nothing of the guest
 * @returns false if the guest lacks the room or an offload: the caller counts it
 */
export function receiveCopy(
  batch: Batch,
  packet: Uint8Array,
  granted = 0,
  metadata: PacketMetadata | null = null,
): boolean {
  if (packet.length > batch.nextBuffer()) return false;
  if (metadata !== null && !allowsMetadata(granted, metadata.flags, metadata.gsoType)) return false;
  let at = 0;
  for (let s = batch.used; at < packet.length; s++) {
    const part = packet.subarray(at, at + batch.size[s]);
    if (part.length > 0) copyToAddress(batch.address[s], part);
    at += part.length;
  }
  const p = batch.endReceived(packet.length);
  if (p === FILTERED_OUT) return true;
  if (metadata !== null) batch.setMetadata(p, metadata);
  else batch.clearMetadata(p);
  return true;
}

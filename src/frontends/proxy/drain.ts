/** Stopping transmission: send what is published for a bounded time, and count the rest. */
import type { TxRing } from "../../devices/format.ts";
import type { QueuePair } from "../../engine/pair.ts";
import { Batch } from "../../memory/index.ts";
import { waitWritable } from "../../os/fd.ts";

/** The VMM waits for the reply with a CPU of the guest: long enough for a busy TAP, too short to be noticed. */
const DRAIN_MS = 100;

/** @param limit packets at most: a guest may go on publishing */
export function drainTx(pair: QueuePair, limit: number): void {
  const deadline = performance.now() + DRAIN_MS;
  pair.portWritable();
  pair.endRest();
  for (let sent = 0; sent < limit && pair.tx !== null; ) {
    const n = pair.drainTx();
    sent += n;
    if (n > 0) continue;
    if (!pair.txBlocked) return;
    if (!waitWritable(pair.port.fd, deadline - performance.now())) return;
    pair.portWritable();
  }
}

/** Packets that the guest has published and that nobody sent; they stay in the ring, for the guest to reclaim. */
export function unsentPackets(ring: TxRing, bufs: number): number {
  return ring.gather(new Batch(bufs));
}

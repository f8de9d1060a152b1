/** Before transmission stops: sends what the guest has published, within a deadline. */
import { Batch } from "../memory/index.ts";
import { waitWritable } from "../os/fd.ts";
import type { QueuePair } from "./pair.ts";

/** A word that is never notified: waiting for it sleeps. */
const NEVER = new Int32Array(new SharedArrayBuffer(4));

/**
 * Sends what the guest has published, at most one ring of it: a guest may go on publishing.
 * @param ms how long to wait, in all, for a port that blocks; 0: only what it takes at once
 */
export function drainTransmit(pair: QueuePair, ms: number): void {
  const deadline = performance.now() + ms;
  const { tx } = pair;
  const limit = tx.bufs + (tx.retiring?.bufs ?? 0);
  // Whether the port still blocks is found out by sending.
  pair.portWritable();
  tx.backOff.end();
  for (let sent = 0; sent < limit && tx.ring !== null; ) {
    const n = pair.drainTx();
    sent += n;
    if (n > 0) continue;
    if (!pair.txBlocked) return;
    const left = deadline - performance.now();
    if (!(pair.txHeld ? waitForLimit(pair, left) : waitWritable(pair.port.fd, left))) return;
    pair.portWritable();
  }
}

/** @returns false if the limit holds packets for longer than `left` milliseconds */
function waitForLimit({ port }: QueuePair, left: number): boolean {
  const { sendHeldMs } = port;
  if (sendHeldMs > left) return false;
  Atomics.wait(NEVER, 0, 0, sendHeldMs);
  return true;
}

/** Counts packets that were published and not sent: they stay in the rings, for the guest. */
export function unsentPackets({ tx }: QueuePair): number {
  const rings = [tx.retiring, tx.current];
  return rings.reduce((sum, entry) => sum + (entry?.ring?.gather(new Batch(entry.bufs)) ?? 0), 0);
}

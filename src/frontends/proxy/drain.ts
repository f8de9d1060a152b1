/** Stopping transmission: send what is published for a bounded time, and count the rest. */
import type { TxHalf } from "../../devices/device.ts";
import type { QueuePair } from "../../engine/pair.ts";
import { Batch } from "../../memory/index.ts";
import { EPOLLOUT, Epoll } from "../../os/epoll.ts";

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

/** Waits for room in the port. @returns false where there is none in time */
function waitWritable(fd: number, ms: number): boolean {
  if (fd < 0 || ms <= 0) return false;
  const epoll = new Epoll(1);
  try {
    epoll.add(fd, EPOLLOUT, 0);
    return epoll.wait(Math.ceil(ms)) > 0;
  } finally {
    epoll.close();
  }
}

/** Packets that the guest has published and that nobody sent; they stay in the ring, for the guest to reclaim. */
export function unsentPackets(ring: TxHalf, bufs: number): number {
  return ring.gather(new Batch(bufs));
}

/** How a queue pair goes on after a crash of the process that served its rings. */
import { begun, PROGRESS } from "../net/progress.ts";
import type { RxQueue, TxQueue } from "./queue.ts";

export class Resumption {
  /** Packets at the front of the transmit ring that are sent already, and not completed. */
  left = 0;

  /**
   * @param queues their rings are attached
   * @param progress what the process had counted; set to 0
   * @returns packets that may be lost: what it had received, and what it was about to send
   */
  from({ tx, rx }: { tx: TxQueue; rx: RxQueue }, progress: Int32Array): number {
    const [sent, sentFrom, taken, takenFrom] = progress;
    // Otherwise the batch was completed, and the counts had no time to follow.
    const sends = sent > 0 && isAt(tx.sending, sentFrom, tx.bufs);
    const takes = taken > 0 && (takenFrom < 0 || isAt(rx.ring, takenFrom, rx.bufs));
    this.left = sends ? begun(sent) : 0;
    if (takes && takenFrom >= 0) rx.ring?.discard?.(begun(taken));
    progress.fill(0, 0, PROGRESS.WORDS);
    return (takes ? begun(taken) : 0) + (sends ? sent & 1 : 0);
  }

  /** @param found packets in the batch @returns how many of them to complete without sending */
  passOver(found: number): number {
    const passed = Math.min(found, this.left);
    this.left -= passed;
    return passed;
  }
}

/** A ring that went on from what is in the guest's memory knows its position modulo two laps. */
function isAt(ring: { save(): number } | null, position: number, bufs: number): boolean {
  return ring === null || ((ring.save() - position) & (2 * bufs - 1)) === 0;
}

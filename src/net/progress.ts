/**
 * How far the port of a queue pair is with a batch, in memory that may outlive the process: another
 * one that goes on after a crash sends no packet twice, and counts what is lost.
 */

/**
 * `sent`: 1 for the beginning and 1 for the end of each packet of the batch that the transmit ring
 * had at position `sentFrom`. `taken`: the same of packets that were received and that the guest
 * has not got; `takenFrom`: of the receive ring, ANYWHERE for packets of several rings.
 */
export const PROGRESS = { sent: 0, sentFrom: 1, taken: 2, takenFrom: 3, WORDS: 4 } as const;

export const ANYWHERE = -1;

/** Packets that began. */
export const begun = (count: number): number => (count + 1) >> 1;

export const newProgress = (): Int32Array => new Int32Array(PROGRESS.WORDS);

/** What a worker shares with the main thread from its start: its pulse, and what it holds. */
import { workerData } from "node:worker_threads";
import { keepLedger } from "../os/ledger.ts";
import { currentThread } from "../os/thread.ts";
import { PULSE, type Shared } from "./waiting-worker.ts";

/**
 * In the worker, before anything that may hang, and before anything is opened.
 * @returns the word in which its loop counts turns, which the watchdog reads
 */
export function startPulse(): Int32Array {
  const { pulse, ledger } = workerData as Shared;
  keepLedger(ledger);
  Atomics.store(pulse, PULSE.thread, currentThread());
  return pulse.subarray(PULSE.turns, PULSE.turns + 1);
}

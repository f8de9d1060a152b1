/**
 * A worker's pulse in shared memory: its thread, and the turns of its loop, which the main thread's
 * watchdog reads.
 */
import { workerData } from "node:worker_threads";
import { currentThread } from "../os/thread.ts";
import { PULSE } from "./waiting-worker.ts";

/**
 * In the worker, before anything that may hang.
 * @returns the word in which its loop counts turns
 */
export function startPulse(): Int32Array {
  const shared = workerData as Int32Array;
  Atomics.store(shared, PULSE.thread, currentThread());
  return shared.subarray(PULSE.turns, PULSE.turns + 1);
}

/**
 * A worker's pulse in shared memory: its thread, and the turns of its
 * loop. The main thread's watchdog looks at it.
 */
import { workerData } from "node:worker_threads";
import { currentThread } from "../os/thread.ts";
import { PULSE } from "./waiting-worker.ts";

/** In the worker, before anything that may hang. @returns where its loop counts turns */
export function startPulse(): Int32Array {
  const shared = workerData as Int32Array;
  Atomics.store(shared, PULSE.thread, currentThread());
  return shared.subarray(PULSE.turns, PULSE.turns + 1);
}

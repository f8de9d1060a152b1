/**
 * A worker that starts before it is known what it is to do: its modules load while the command line
 * is read. Then it waits at a gate; its task is the first message, taken by hand, because no event
 * loop turns in such a worker.
 */
import {
  type MessagePort,
  type ResourceLimits,
  receiveMessageOnPort,
  Worker,
  workerData,
} from "node:worker_threads";

/**
 * Words that the worker shares with whoever started it: open at 1; its thread, 0 until known; turns
 * of its loop; 1 once its modules are loaded.
 */
export const PULSE = { gate: 0, thread: 1, turns: 2, loaded: 3, WORDS: 4 } as const;

/** Longer than modules load on a busy machine. */
const LOAD_MS = 5000;

/**
 * Heap of a NIC's worker. A loop that allocates next to nothing needs no large young generation,
 * and a small old one is collected before it fills with what start-up leaves (measured: README.md).
 * A worker that needs more than the old one ends, and its NIC with it.
 */
const NIC_LIMITS: ResourceLimits = { maxYoungGenerationSizeMb: 3, maxOldGenerationSizeMb: 128 };

export class WaitingWorker {
  readonly #worker: Worker;
  /** See PULSE. */
  readonly pulse = new Int32Array(new SharedArrayBuffer(4 * PULSE.WORDS));

  /** @param module calls `takeTask` once it is loaded */
  constructor(module: URL, limits: ResourceLimits = {}) {
    this.#worker = new Worker(module, { workerData: this.pulse, resourceLimits: limits });
    // If the command line is wrong, the process ends all the same.
    this.#worker.unref();
  }

  /**
   * Waits until the modules are loaded, as long as that may take. Before that the
   * process must not end: a thread that is stopped in the middle of loading
   * native code takes the process with it, by SIGABRT.
   */
  waitUntilLoaded(): void {
    Atomics.wait(this.pulse, PULSE.loaded, 0, LOAD_MS);
  }

  /** Opens the gate. Call it once. */
  begin(task: object): Worker {
    this.#worker.ref();
    this.#worker.postMessage(task);
    Atomics.store(this.pulse, PULSE.gate, 1);
    Atomics.notify(this.pulse, PULSE.gate);
    return this.#worker;
  }
}

export const nicWorker = (): WaitingWorker =>
  new WaitingWorker(new URL("./nic-worker.js", import.meta.url), NIC_LIMITS);

export const backendWorker = (): WaitingWorker =>
  new WaitingWorker(new URL("./backend-worker.js", import.meta.url));

/** In the worker: waits for its task. */
export function takeTask<Task>(port: MessagePort): Task {
  const pulse = workerData as Int32Array;
  Atomics.store(pulse, PULSE.loaded, 1);
  Atomics.notify(pulse, PULSE.loaded);
  Atomics.wait(pulse, PULSE.gate, 0);
  return receiveMessageOnPort(port)!.message as Task;
}

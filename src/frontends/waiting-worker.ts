/**
 * A worker that starts before it is known what it is to do: its modules load while the command line is read. Then it
 * waits at a gate; its task is the first message, taken by hand, because no event loop turns in such a worker.
 */
import { type MessagePort, receiveMessageOnPort, Worker, workerData } from "node:worker_threads";

export class WaitingWorker {
  readonly #worker: Worker;
  readonly #gate = new Int32Array(new SharedArrayBuffer(4));

  /** @param module calls `takeTask` once it is loaded */
  constructor(module: URL) {
    this.#worker = new Worker(module, { workerData: this.#gate });
    // Where the command line is wrong, the process ends all the same.
    this.#worker.unref();
  }

  /** Opens the gate. Call it once. */
  begin(task: object): Worker {
    this.#worker.ref();
    this.#worker.postMessage(task);
    Atomics.store(this.#gate, 0, 1);
    Atomics.notify(this.#gate, 0);
    return this.#worker;
  }
}

export const nicWorker = (): WaitingWorker =>
  new WaitingWorker(new URL("./nic-worker.js", import.meta.url));

/** In the worker: waits for its task. */
export function takeTask<Task>(port: MessagePort): Task {
  Atomics.wait(workerData as Int32Array, 0, 0);
  return receiveMessageOnPort(port)!.message as Task;
}

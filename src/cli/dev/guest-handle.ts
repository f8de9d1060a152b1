/** A guest's thread, as the main thread sees it. */
import { Worker } from "node:worker_threads";
import type { Answered, Order } from "./messages.ts";

type Ordered = Order extends infer Each ? (Each extends Order ? Omit<Each, "id"> : never) : never;

/** The thread does not answer, or it has ended. */
export class GuestLost extends Error {}

export class GuestHandle {
  readonly #worker = new Worker(new URL("./guest-thread.js", import.meta.url));
  readonly #waiting = new Map<number, (answer: Answered | Error) => void>();
  readonly #up: Promise<void>;
  /** Settles when the thread ends by itself, or fails. */
  readonly died: Promise<Error>;
  #last = 0;

  constructor() {
    // Also if it fails before: then nobody waits for it in vain.
    this.#up = new Promise((resolve) => {
      for (const event of ["online", "error", "exit"]) this.#worker.once(event, () => resolve());
    });
    this.#worker.on("message", (answer: Answered) => this.#end(answer.id, answer));
    this.died = new Promise((resolve) => {
      const end = (error: Error) => {
        this.#fail(error);
        resolve(error);
      };
      this.#worker.on("error", end);
      this.#worker.on("exit", () => end(new GuestLost("the guest's thread has ended")));
    });
  }

  /** @throws what went wrong there, with its stack; GuestLost */
  async ask(order: Ordered, limitMs: number): Promise<Answered> {
    await this.#up;
    const id = ++this.#last;
    const answer = await new Promise<Answered | Error>((resolve) => {
      const late = () =>
        this.#end(id, new GuestLost(`no answer in ${limitMs / 1000} s: does a loop never end?`));
      const limit = setTimeout(late, limitMs);
      this.#waiting.set(id, (answer) => {
        clearTimeout(limit);
        resolve(answer);
      });
      this.#worker.postMessage({ ...order, id });
    });
    if (answer instanceof Error) throw answer;
    if (answer.error === undefined) return answer;
    throw Object.assign(new Error(answer.error.message), { stack: answer.error.stack });
  }

  /** Ends the thread, whatever it does. */
  async end(): Promise<void> {
    // A thread that is stopped while it loads native code takes the process with it.
    await this.ask({ verb: "count" }, 2000).catch(() => {});
    await this.#worker.terminate();
  }

  #end(id: number, answer: Answered | Error): void {
    const waiting = this.#waiting.get(id);
    this.#waiting.delete(id);
    waiting?.(answer);
  }

  #fail(error: Error): void {
    for (const id of [...this.#waiting.keys()]) this.#end(id, error);
  }
}

/** A NIC in a worker of this process: start it, send it requests, stop it. */
import type { Worker } from "node:worker_threads";
import type { ServedBackendOptions } from "../frontends/proxy/served-backend.ts";
import type { ServedNicOptions } from "../frontends/served-nic.ts";
import { createEventFd, signalEventFd } from "../os/eventfd.ts";
import { close } from "../os/fd.ts";
import { newLedger } from "../os/ledger.ts";
import { exitWithoutThreads } from "../os/process.ts";
import { releaseHeld } from "../os/release.ts";
import type { Reply, Request, ToMain } from "./messages.ts";
import type { WaitingWorker } from "./waiting-worker.ts";
import { Watchdog } from "./watchdog.ts";
import type { WorkerOptions } from "./worker.ts";

/** The task of a worker, by kind of worker. */
export type NicOptions = WorkerOptions & ServedNicOptions;
export type BackendOptions = WorkerOptions & ServedBackendOptions;

/**
 * A worker stops at once unless a system call holds it. All in all the process ends within 2 s,
 * and what the worker waited for a CPU.
 */
const STOP_MS = 1200;
/** For a worker that computes, and can be ended from outside. */
const TERMINATE_MS = 300;
/** Of a wait for a CPU that counts. */
const MOST_STARVED_MS = 20_000;

/** A request that the worker has not answered. */
interface Waiting {
  readonly resolve: (result: unknown) => void;
  readonly reject: (error: Error) => void;
}

/** Why a NIC did not start, died, or does not answer. `expected`: the message says what to do. */
export class NicFailed extends Error {
  readonly expected: boolean;
  constructor(message: string, expected: boolean) {
    super(message);
    this.name = "NicFailed";
    this.expected = expected;
  }
}

/** A running NIC refused a request, and stays as it was. */
export class RequestRefused extends Error {
  constructor(message: string) {
    super(message);
    this.name = "RequestRefused";
  }
}

export interface HandleOptions<Task extends object> {
  /** Names the NIC to people: the path of its socket. */
  readonly name: string;
  readonly task: Task;
  /** Serves the task. */
  readonly worker: WaitingWorker;
  readonly log: (level: "info" | "warn", text: string) => void;
  /** Takes what is for standard output. */
  readonly print?: (text: string) => void;
}

export class WorkerHandle<Task extends object = NicOptions> {
  readonly name: string;
  readonly #worker: Worker;
  readonly #wakeFd: number;
  readonly #ledger = newLedger();
  readonly #log: (level: "info" | "warn", text: string) => void;
  readonly #print: (text: string) => void;
  readonly #waiting = new Map<number, Waiting>();
  readonly #watchdog: Watchdog;
  #nextId = 1;
  #hasEnded = false;
  /** Why the worker does not answer; null if it does. */
  #stuck: string | null = null;
  /** It has put everything in order, and has only to end. */
  #hasStopped = false;
  #stopTimer: NodeJS.Timeout | undefined;
  #settle!: (failure: NicFailed | null) => void;
  /** Settles when the worker has ended; rejects with NicFailed if it failed. */
  readonly ended: Promise<void>;
  #ready!: () => void;
  readonly #started = new Promise<void>((resolve) => {
    this.#ready = resolve;
  });

  constructor({ name, task, worker, log, print = () => {} }: HandleOptions<Task>) {
    this.name = name;
    this.#log = log;
    this.#print = print;
    this.#wakeFd = createEventFd();
    this.#worker = worker.begin({ ...task, wakeFd: this.#wakeFd, ledger: this.#ledger });
    this.#watchdog = new Watchdog(worker.pulse, {
      stuck: (what) => this.#isStuck(what),
      moved: (seconds) => {
        this.#stuck = null;
        log("warn", `the NIC's worker continues after ${seconds} s`);
      },
    });
    this.ended = new Promise((resolve, reject) => {
      this.#settle = (failure) => (failure === null ? resolve() : reject(failure));
    });
    // A failure that no caller awaits must not end the process.
    this.ended.catch(() => {});
    this.#listen();
  }

  #listen(): void {
    let failure: NicFailed | null = null;
    this.#worker.on("message", (message: ToMain) => {
      if (message.kind === "failed") {
        const { expected, stack } = message;
        failure = new NicFailed(expected ? message.message : stack, expected);
      } else this.#take(message);
    });
    this.#worker.on("error", (error) => {
      failure = new NicFailed(String(error.stack ?? error), false);
    });
    this.#worker.on("exit", () => {
      this.#release();
      const isToldWhy = failure !== null || this.#hasStopped;
      this.#end(isToldWhy ? failure : new NicFailed("the worker ended unexpectedly", true));
    });
  }

  /**
   * After its thread's end. A worker that ran out of memory, or was terminated, has closed nothing,
   * and its VMM and guest would wait for an answer.
   */
  #release(): void {
    close(this.#wakeFd);
    releaseHeld(this.#ledger);
  }

  /** Nothing more comes from the worker. */
  #end(failure: NicFailed | null): void {
    this.#hasEnded = true;
    this.#watchdog.close();
    clearTimeout(this.#stopTimer);
    // First: whoever waits for an answer and for the end sees why it ended.
    this.#settle(failure);
    this.#refuseWaiting(failure?.message ?? "the NIC has ended");
  }

  #isStuck(what: string): void {
    this.#stuck = what;
    this.#log("warn", what);
    this.#refuseWaiting(what);
  }

  #refuseWaiting(why: string): void {
    for (const { reject } of this.#waiting.values()) reject(new NicFailed(why, true));
    this.#waiting.clear();
  }

  /** @throws NicFailed if it does not start */
  async started(): Promise<void> {
    await Promise.race([this.#started, this.ended]);
  }

  /**
   * Has the worker carry out one verb of its table (worker.ts, and `verbs` of its frontend).
   * @param body plain data that the verb takes; checked by the caller
   * @returns what the verb returns
   * @throws RequestRefused if the NIC stays as it was; NicFailed if its worker hangs or has ended
   */
  request<T = void>(verb: string, body?: unknown): Promise<T> {
    const id = this.#nextId++;
    return new Promise<T>((resolve, reject) => {
      const why = this.#hasEnded ? "the NIC has ended" : this.#stuck;
      if (why !== null) return reject(new NicFailed(why, true));
      this.#waiting.set(id, { resolve: (result) => resolve(result as T), reject });
      this.#send({ id, verb, body });
    });
  }

  /**
   * Ends the loop in order: the client is released, ports are closed. A worker that a system call
   * holds is given up after a bounded time: then this rejects with what held it, and the process,
   * which cannot end such a thread, ends without it and with a status other than 0.
   */
  async stop(): Promise<void> {
    if (!this.#hasEnded) {
      this.#send({ id: 0, verb: "stop", body: undefined });
      if (this.#stopTimer === undefined) this.#after(STOP_MS, () => this.#terminate());
    }
    await this.ended;
  }

  get hasEnded(): boolean {
    return this.#hasEnded;
  }

  /**
   * Calls `then` after a time in which the worker need not wait for a CPU: a worker that has less
   * of it than it needs does not hang.
   */
  #after(ms: number, then: () => void): void {
    const waits = this.#watchdog.watchCpuWaits();
    let granted = 0;
    const look = (): void => {
      const waited = Math.min(waits(), MOST_STARVED_MS);
      if (waited - granted < 1) return then();
      this.#stopTimer = setTimeout(look, waited - granted);
      granted = waited;
    };
    this.#stopTimer = setTimeout(look, ms);
  }

  #terminate(): void {
    const { held, begun } = this.#watchdog;
    this.#after(TERMINATE_MS, () => this.#giveUp(held));
    // Ends JavaScript at once, a system call never. A worker whose loop has not begun leaves
    // nothing to put in order.
    this.#worker.removeAllListeners("exit");
    this.#worker.once("exit", () => {
      this.#release();
      const isInOrder = this.#hasStopped || !begun;
      const why = `the worker did not stop: it was in ${held}`;
      this.#end(isInOrder ? null : new NicFailed(why, true));
    });
    void this.#worker.terminate();
  }

  #giveUp(held: string): void {
    this.#worker.removeAllListeners("exit");
    this.#worker.unref();
    process.once("exit", (status) => exitWithoutThreads(status === 0 ? 1 : status));
    const why = `the worker does not stop: it hangs in ${held}; the process ends without it`;
    this.#end(new NicFailed(why, true));
  }

  #send(request: Request): void {
    // The descriptor may belong to another owner by now.
    if (this.#hasEnded) return;
    this.#worker.postMessage(request);
    signalEventFd(this.#wakeFd);
  }

  #take(message: Exclude<ToMain, { kind: "failed" }>): void {
    if (message.kind === "ready") this.#ready();
    else if (message.kind === "stopped") this.#hasStopped = true;
    else if (message.kind === "log") this.#log(message.level, message.text);
    else if (message.kind === "print") this.#print(message.text);
    else this.#takeReply(message);
  }

  #takeReply({ id, result, error }: Reply): void {
    const waiting = this.#waiting.get(id);
    this.#waiting.delete(id);
    if (error === null) waiting?.resolve(result);
    else waiting?.reject(new RequestRefused(error));
  }
}

/** A NIC in a worker of this process: start it, ask it, stop it. */
import type { Worker } from "node:worker_threads";
import type { ProgramSets } from "../devices/program-set.ts";
import type { PortSpec } from "../net/create.ts";
import type { NicStatus } from "../nic/status.ts";
import { createEventFd, signalEventFd } from "../os/eventfd.ts";
import { close } from "../os/fd.ts";
import { exitWithoutThreads } from "../os/process.ts";
import type { NicWorkerData, ToMain, ToWorker } from "./nic-messages.ts";
import type { WaitingWorker } from "./waiting-worker.ts";
import { Watchdog } from "./watchdog.ts";

export type NicOptions = Omit<NicWorkerData, "wakeFd">;

/**
 * A worker stops at once unless a system call holds it. All in all the process ends within 2 s,
 * and what the worker waited for a CPU.
 */
const STOP_MS = 1200;
/** For a worker that computes, and can be ended from outside. */
const TERMINATE_MS = 300;
/** Of a wait for a CPU that counts. */
const MOST_STARVED_MS = 20_000;

/** Who waits for an answer of the worker. */
interface Waiting<T> {
  readonly resolve: (value: T) => void;
  readonly reject: (error: Error) => void;
}

/** Why a NIC could not be started, or died. `expected`: the message says what to do. */
export class NicFailed extends Error {
  readonly expected: boolean;
  constructor(message: string, expected: boolean) {
    super(message);
    this.name = "NicFailed";
    this.expected = expected;
  }
}

export class WorkerHandle<Options extends object = NicOptions> {
  readonly #worker: Worker;
  readonly #wakeFd: number;
  readonly #log: (level: "info" | "warn", text: string) => void;
  readonly #print: (text: string) => void;
  readonly #asked = new Map<number, Waiting<NicStatus>>();
  readonly #changing = new Map<number, Waiting<void>>();
  readonly #watchdog: Watchdog;
  #nextId = 1;
  #hasEnded = false;
  /** Why the worker does not answer; null if it does. */
  #stuck: string | null = null;
  /** It has put everything in order, and has only to end. */
  #hasStopped = false;
  #stopTimer: NodeJS.Timeout | undefined;
  #settle!: (failure: NicFailed | null) => void;
  /** Settles when the worker has ended; rejects with NicFailed where it failed. */
  readonly ended: Promise<void>;
  #ready!: () => void;
  readonly #started = new Promise<void>((resolve) => {
    this.#ready = resolve;
  });

  /**
   * @param worker serves; its options are its task
   * @param print takes what is for standard output
   */
  constructor(
    options: Options,
    log: (level: "info" | "warn", text: string) => void,
    worker: WaitingWorker,
    print: (text: string) => void = () => {},
  ) {
    this.#log = log;
    this.#print = print;
    this.#wakeFd = createEventFd();
    this.#worker = worker.begin({ ...options, wakeFd: this.#wakeFd });
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
    // Whoever awaits `ended` sees the failure; nobody has to.
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
      close(this.#wakeFd);
      this.#end(failure);
    });
  }

  /** Nothing more comes from the worker. */
  #end(failure: NicFailed | null): void {
    this.#hasEnded = true;
    this.#watchdog.close();
    clearTimeout(this.#stopTimer);
    this.#refuseWaiting(failure?.message ?? "the NIC has ended");
    this.#settle(failure);
  }

  #isStuck(what: string): void {
    this.#stuck = what;
    this.#log("warn", what);
    this.#refuseWaiting(what);
  }

  #refuseWaiting(why: string): void {
    for (const waiting of [this.#asked, this.#changing]) {
      for (const { reject } of waiting.values()) reject(new NicFailed(why, true));
      waiting.clear();
    }
  }

  /** @throws NicFailed where it cannot be started */
  async started(): Promise<void> {
    await Promise.race([this.#started, this.ended]);
  }

  /** The NIC as it is now. Rejects with NicFailed if the worker hangs or has ended. */
  status(): Promise<NicStatus> {
    return this.#await(this.#asked, (id) => ({ kind: "status", id }));
  }

  /**
   * Another port for the running NIC. Rejects if it cannot be opened; then the old one stays.
   */
  setPort(port: PortSpec): Promise<void> {
    return this.#change((id) => ({ kind: "set-port", id, port }));
  }

  /** Another MTU for the running NIC, which the guest is told of. Rejects where it cannot be. */
  setMtu(mtu: number): Promise<void> {
    return this.#change((id) => ({ kind: "set-mtu", id, mtu }));
  }

  #change(message: (id: number) => ToWorker): Promise<void> {
    return this.#await(this.#changing, message);
  }

  #await<T>(waiting: Map<number, Waiting<T>>, message: (id: number) => ToWorker): Promise<T> {
    const id = this.#nextId++;
    return new Promise((resolve, reject) => {
      const why = this.#hasEnded ? "the NIC has ended" : this.#stuck;
      if (why !== null) return reject(new NicFailed(why, true));
      waiting.set(id, { resolve, reject });
      this.#send(message(id));
    });
  }

  /** Gives the NIC what it ships: clients wait at its socket until then. */
  ship(sets: ProgramSets): void {
    this.#send({ kind: "programs", sets });
  }

  /** Of a backend of the original's protocol: asks the VMM for an upgrade. */
  signalUpgrade(): void {
    this.#send({ kind: "signal-upgrade" });
  }

  /**
   * Ends the loop in order: the client is let go, ports are closed. A worker that a system call
   * holds is given up after a bounded time: then this rejects with what held it, and the process,
   * which cannot end such a thread, ends without it and with a status other than 0.
   */
  async stop(): Promise<void> {
    if (!this.#hasEnded) {
      this.#send({ kind: "stop" });
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
    // Ends JavaScript at once, a system call never. One that has served
    // nobody yet has nothing to put in order.
    this.#worker.removeAllListeners("exit");
    this.#worker.once("exit", () => {
      close(this.#wakeFd);
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

  #send(message: ToWorker): void {
    // The descriptor may be somebody else's by now.
    if (this.#hasEnded) return;
    this.#worker.postMessage(message);
    signalEventFd(this.#wakeFd);
  }

  #take(message: ToMain): void {
    if (message.kind === "ready") this.#ready();
    else if (message.kind === "stopped") this.#hasStopped = true;
    else if (message.kind === "log") this.#log(message.level, message.text);
    else if (message.kind === "print") this.#print(message.text);
    else if (message.kind === "changed") {
      const waiting = this.#changing.get(message.id);
      this.#changing.delete(message.id);
      if (message.error === null) waiting?.resolve();
      else waiting?.reject(new NicFailed(message.error, true));
    } else if (message.kind === "status") {
      this.#asked.get(message.id)?.resolve(message.status);
      this.#asked.delete(message.id);
    }
  }
}

/** A NIC in a worker of this process: start it, ask it, stop it. */
import type { Worker } from "node:worker_threads";
import type { ProgramSets } from "../devices/sets.ts";
import type { PortSpec } from "../net/create.ts";
import type { NicStatus } from "../nic/status.ts";
import { createEventFd, signalEventFd } from "../os/eventfd.ts";
import { close } from "../os/fd.ts";
import type { NicWorkerData, ToMain, ToWorker } from "./nic-messages.ts";
import type { WaitingWorker } from "./waiting-worker.ts";

export type NicOptions = Omit<NicWorkerData, "wakeFd">;

/** Why a NIC could not be started, or died. `expected`: the message says what to do. */
export class NicFailed extends Error {
  readonly expected: boolean;
  constructor(message: string, expected: boolean) {
    super(message);
    this.name = "NicFailed";
    this.expected = expected;
  }
}

export class NicProcess<Options extends object = NicOptions> {
  readonly #worker: Worker;
  readonly #wakeFd: number;
  readonly #log: (level: "info" | "warn", text: string) => void;
  readonly #asked = new Map<number, (status: NicStatus) => void>();
  readonly #changing = new Map<number, (error: string | null) => void>();
  #nextId = 1;
  #hasEnded = false;
  /** Settles when the worker has ended; rejects with NicFailed where it failed. */
  readonly ended: Promise<void>;
  #ready!: () => void;
  readonly #started = new Promise<void>((resolve) => {
    this.#ready = resolve;
  });

  /** @param worker serves; its options are its task */
  constructor(
    options: Options,
    log: (level: "info" | "warn", text: string) => void,
    worker: WaitingWorker,
  ) {
    this.#log = log;
    this.#wakeFd = createEventFd();
    this.#worker = worker.begin({ ...options, wakeFd: this.#wakeFd });
    this.ended = new Promise((resolve, reject) => {
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
        this.#hasEnded = true;
        close(this.#wakeFd);
        if (failure === null) resolve();
        else reject(failure);
      });
    });
    // Whoever awaits `ended` sees the failure; nobody has to.
    this.ended.catch(() => {});
  }

  /** @throws NicFailed where it cannot be started */
  async started(): Promise<void> {
    await Promise.race([this.#started, this.ended]);
  }

  /** The NIC as it is now. */
  status(): Promise<NicStatus> {
    const id = this.#nextId++;
    return new Promise((resolve) => {
      this.#asked.set(id, resolve);
      this.#send({ kind: "status", id });
    });
  }

  /** Another port for the running NIC. Rejects where it cannot be opened; then the old one stays. */
  setPort(port: PortSpec): Promise<void> {
    return this.#change((id) => ({ kind: "set-port", id, port }));
  }

  /** Another MTU for the running NIC, which the guest is told of. Rejects where it cannot be. */
  setMtu(mtu: number): Promise<void> {
    return this.#change((id) => ({ kind: "set-mtu", id, mtu }));
  }

  #change(message: (id: number) => ToWorker): Promise<void> {
    const id = this.#nextId++;
    return new Promise((resolve, reject) => {
      this.#changing.set(id, (error) => {
        if (error === null) resolve();
        else reject(new NicFailed(error, true));
      });
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

  /** Ends the loop in order: the client is let go, ports are closed. */
  async stop(): Promise<void> {
    this.#send({ kind: "stop" });
    await this.ended;
  }

  #send(message: ToWorker): void {
    // The descriptor may be somebody else's by now.
    if (this.#hasEnded) return;
    this.#worker.postMessage(message);
    signalEventFd(this.#wakeFd);
  }

  #take(message: ToMain): void {
    if (message.kind === "ready") this.#ready();
    else if (message.kind === "log") this.#log(message.level, message.text);
    else if (message.kind === "print") process.stdout.write(message.text);
    else if (message.kind === "changed") {
      this.#changing.get(message.id)?.(message.error);
      this.#changing.delete(message.id);
    } else if (message.kind === "status") {
      this.#asked.get(message.id)?.(message.status);
      this.#asked.delete(message.id);
    }
  }
}

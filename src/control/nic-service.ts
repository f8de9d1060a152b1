/** One NIC of this process: its worker, its sockets, its spec. */
import { resolve } from "node:path";
import type { RingFormat } from "../devices/format.ts";
import { removeSocket, type SocketAccess, socketInode } from "../os/unix-socket.ts";
import { ControlSocket } from "./control-socket.ts";
import type { Events } from "./events.ts";
import { type NicOptions, WorkerHandle } from "./handle.ts";
import type { GroupedNic } from "./nic-group.ts";
import { describeAction } from "./plan.ts";
import { type ProvedPrograms, provedPrograms } from "./programs.ts";
import { replaceSet } from "./replace-set.ts";
import type { Served } from "./routes.ts";
import { RunningNic, type Status } from "./running-nic.ts";
import type { NicSpec } from "./spec.ts";
import type { WaitingWorker } from "./waiting-worker.ts";

export interface NicServiceOptions {
  readonly spec: NicSpec;
  /** Of the spec. */
  readonly format: RingFormat;
  readonly task: NicOptions;
  readonly worker: WaitingWorker;
  readonly access: SocketAccess;
  readonly losesRights: boolean;
  readonly log: (level: "info" | "warn", text: string) => void;
  readonly events: Events;
  /** Of bpfhv. */
  readonly version: string;
}

export class NicService implements GroupedNic {
  readonly spec: NicSpec;
  readonly worker: WorkerHandle;
  readonly nic: RunningNic;
  readonly #options: NicServiceOptions;
  #proving: Promise<ProvedPrograms>;
  #control: ControlSocket | undefined;
  #api: Promise<typeof import("./api.ts")> | undefined;
  #closeApi: (() => void) | undefined;
  /** Of the NIC's socket; 0: it is not there, or its worker has removed it. */
  #inode = 0;

  /** Starts its worker, and has its programs proved meanwhile. */
  constructor(options: NicServiceOptions) {
    const { spec, task, access, losesRights, worker, events } = options;
    this.#options = options;
    this.spec = spec;
    this.worker = new WorkerHandle({
      ...{ name: spec.socket, worker, task: { ...task, access, losesRights } },
      log: (level, text) => this.say(level, text),
    });
    this.#proving = provedPrograms(options.format, task, spec.allowUnverified);
    // Awaited in `prove`, which is not called if the NIC fails before.
    this.#proving.catch(() => {});
    this.nic = new RunningNic({
      // Clients may have another working directory.
      spec: { ...spec, socket: resolve(spec.socket) },
      ...{ worker: this.worker, process: () => this.#status() },
      replace: async (wanted) => {
        const proved = await replaceSet(this.worker, wanted, (text) => this.say("info", text));
        this.#proving = Promise.resolve(proved);
      },
      changed: (actions) => {
        for (const action of actions) this.say("info", describeAction(action));
        events.publish("changed", spec.name, { changed: actions });
      },
    });
  }

  get name(): string {
    return this.spec.name;
  }

  /** See `WorkerHandle`. */
  get ended(): Promise<void> {
    return this.worker.ended;
  }

  /** To the log, and to those who listen to events. */
  say(level: "info" | "warn", text: string): void {
    const { log, events, spec } = this.#options;
    log(level, text);
    events.publish("log", spec.name, { level, text });
  }

  async #status(): Promise<Status> {
    const { interrupts, allowUnsealed, socket } = this.nic.spec;
    return {
      ...{ pid: process.pid, socket, version: this.#options.version, interrupts, allowUnsealed },
      uptimeSeconds: Math.floor(process.uptime()),
      proof: (await this.#proving).proof,
    };
  }

  /** Opens ports and sockets: clients wait at them. @throws NicFailed, CommandError */
  async start(): Promise<void> {
    await this.worker.started();
    if (this.worker.hasEnded) return;
    this.#inode = socketInode(this.spec.socket);
    const inOrder = () => {
      this.#inode = 0;
    };
    void this.worker.ended.then(inOrder, () => {}).then(() => this.close());
    this.#control = new ControlSocket(this.spec.socket, this.#options.access);
  }

  /** Waits until its programs are proved. @throws CommandError */
  async prove(): Promise<void> {
    await this.#proving;
  }

  /** Lets VMMs in. @returns what `status` says of the programs */
  async ship(): Promise<string> {
    const { sets, proof } = await this.#proving;
    const { mtu, maxMtu } = this.spec;
    if (mtu < maxMtu) await this.worker.request("set-mtu", mtu);
    await this.worker.request("ship", sets);
    return proof;
  }

  /** Loads HTTP. Call it before a change of user: the other user may not read our files. */
  loadApi(): Promise<typeof import("./api.ts")> {
    this.#api ??= import("./api.ts");
    return this.#api;
  }

  /** Accepts clients of the API. If HTTP is not loaded yet, it is now: no packet waits for it. */
  async openApi(served: Served): Promise<void> {
    const { serveApi } = await this.loadApi();
    const socket = this.#control;
    if (socket === undefined || socket.isClosed) return;
    const api = serveApi({ served, own: this.nic, socket });
    this.#closeApi = () => api.close();
  }

  async stop(): Promise<void> {
    await this.worker.stop().catch(() => {});
  }

  /** Removes its sockets, whatever state it is in. */
  close(): void {
    this.#control?.close();
    this.#closeApi?.();
    if (this.#inode !== 0) removeSocket(this.spec.socket, this.#inode);
  }
}

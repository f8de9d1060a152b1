/** One NIC of this process: its worker, its sockets, its spec. */
import { resolve } from "node:path";
import type { RingFormat } from "../devices/format.ts";
import { close, duplicate } from "../os/fd.ts";
import { removeSocket, type SocketAccess, socketInode } from "../os/unix-socket.ts";
import { ControlSocket, type InheritedSocket } from "./control-socket.ts";
import type { Events } from "./events.ts";
import { type NicOptions, WorkerHandle } from "./handle.ts";
import type { KeepingTask } from "./keeping.ts";
import type { GroupedNic } from "./nic-group.ts";
import type { FileAccess } from "./peer-access.ts";
import { describeAction } from "./plan.ts";
import { type ProvedPrograms, provedPrograms } from "./programs.ts";
import { finishSet, type MadeSet, makeSet, replaceSet } from "./replace-set.ts";
import type { Served } from "./routes.ts";
import { RunningNic, type Status } from "./running-nic.ts";
import type { NicSpec } from "./spec.ts";
import type { WaitingWorker } from "./waiting-worker.ts";
import type { Frozen } from "./worker-transfer.ts";

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
  /** The NIC is another process's until `takeOver`. */
  readonly takesOver?: boolean;
  /** Its state is kept for after a crash. */
  readonly kept?: KeepingTask;
  /** It has a control socket now. */
  readonly listens?: (fd: number, file: FileAccess) => void;
  /** What it is to be changes, or may change. */
  readonly changes?: () => void;
}

export interface WantedNic {
  readonly spec: NicSpec;
  /** Packets at its ports carry metadata. */
  readonly metadata: boolean;
  /** It may have become this meanwhile: see `NicService.next`. */
  readonly next?: NicSpec | null;
}

/** All that another process needs to go on with a NIC. */
export interface NicHandOver extends Omit<Frozen, "record"> {
  /** Its descriptor is the last one. */
  readonly control: FileAccess;
  readonly record: unknown;
  /** The process that saved it has ended without handing it over. */
  readonly crashed?: boolean;
}

export class NicService implements GroupedNic {
  readonly spec: NicSpec;
  readonly worker: WorkerHandle;
  readonly nic: RunningNic;
  /** What it becomes when the replacement in progress is done. */
  next: NicSpec | null = null;
  readonly #options: NicServiceOptions;
  #proving: Promise<ProvedPrograms>;
  #control: ControlSocket | undefined;
  #api: Promise<typeof import("./api.ts")> | undefined;
  #closeApi: (() => void) | undefined;
  /** Of the NIC's socket; 0: it is not there, or its worker has removed it. */
  #inode = 0;
  #isFrozen = false;
  /** The set that the guest is taking, until `goOn`. */
  #made: MadeSet | undefined;
  /** Until `goOn`: then its file is this process's to remove. */
  #inherited: InheritedSocket | undefined;

  /** Starts its worker, and has its programs proved meanwhile. */
  constructor(options: NicServiceOptions) {
    const { spec, task, access, losesRights, worker, events, takesOver, kept } = options;
    this.#options = options;
    this.spec = spec;
    this.worker = new WorkerHandle({
      ...{ name: spec.socket, worker, task: { ...task, access, losesRights, takesOver, kept } },
      log: (level, text) => this.say(level, text),
    });
    this.#proving = provedPrograms(options.format, task, spec.allowUnverified);
    // Awaited in `prove`, which is not called if the NIC fails before.
    this.#proving.catch(() => {});
    this.nic = new RunningNic({
      // Clients may have another working directory.
      spec: { ...spec, socket: resolve(spec.socket) },
      ...{ worker: this.worker, process: () => this.#status() },
      replace: (wanted) => this.#replace(wanted),
      changed: (actions) => {
        for (const action of actions) this.say("info", describeAction(action));
        events.publish("changed", spec.name, { changed: actions });
        this.next = null;
        options.changes?.();
      },
    });
  }

  /** Before anything of the old set is lost it is known what may be there after a crash. */
  async #replace(wanted: NicSpec): Promise<void> {
    this.next = { ...wanted, socket: this.spec.socket };
    this.#options.changes?.();
    const proved = await replaceSet(this.worker, wanted, (text) => this.say("info", text));
    this.#proving = Promise.resolve(proved);
  }

  /** What another process must know to serve it: its present spec, as this process reads it. */
  get wanted(): WantedNic {
    const { metadata = true } = this.#options.task;
    return { spec: { ...this.nic.spec, socket: this.spec.socket }, metadata };
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
    if (!this.#options.takesOver) this.#listen();
  }

  #listen(inherited?: InheritedSocket): void {
    this.#inode = socketInode(this.spec.socket);
    const inOrder = () => {
      this.#inode = 0;
    };
    void this.worker.ended.then(inOrder, () => {}).then(() => this.close());
    this.#control = new ControlSocket(this.spec.socket, this.#options.access, inherited);
    this.#options.listens?.(this.#control.fd, this.#control.file);
  }

  /** Waits until its programs are proved. @throws CommandError */
  async prove(): Promise<void> {
    await this.#proving;
  }

  /** Lets VMMs in. @returns what `status` says of the programs */
  async ship(): Promise<string> {
    const { sets, proof } = await this.#proving;
    const { mtu, maxMtu } = this.spec;
    // The MTU of a NIC that is taken over comes with it.
    if (mtu < maxMtu && !this.#options.takesOver) await this.worker.request("set-mtu", mtu);
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

  /** Its state while it runs on, to rehearse with; the caller closes the descriptors. */
  async sketch(): Promise<NicHandOver> {
    const socket = this.#control;
    if (socket === undefined) throw new Error("the NIC has no control socket");
    const { record, fds } = await this.worker.request<Frozen>("sketch");
    return { record, control: socket.file, fds: [...fds, duplicate(socket.fd)] };
  }

  /** See `Transfer`. */
  async rehearse({ record, fds }: NicHandOver): Promise<void> {
    const rest = fds.slice(0, -1);
    close(fds[rest.length]);
    await this.worker.request("rehearse", { record, fds: rest });
  }

  /** Pauses it, and returns its state; the descriptors stay this process's. @throws Error */
  async freeze(): Promise<NicHandOver> {
    const socket = this.#control;
    if (socket === undefined) throw new Error("the NIC has no control socket");
    this.#isFrozen = true;
    const { record, fds } = await this.worker.request<Frozen>("freeze");
    return { record, control: socket.file, fds: [...fds, socket.fd] };
  }

  /** Takes the NIC of another process over, and pauses it. @throws Error: stop it then */
  async takeOver({ record, control, fds, crashed }: NicHandOver): Promise<void> {
    const rest = fds.slice(0, -1);
    await this.worker.request("take-over", { record, fds: rest, crashed });
    this.#inherited = { fd: fds[rest.length], file: control };
  }

  /** Ends the pause. The sockets of a NIC that was taken over are this process's now. */
  async goOn(): Promise<void> {
    this.#isFrozen = false;
    await this.worker.request("go-on");
    if (this.#inherited !== undefined) this.#listen(this.#inherited);
    this.#inherited = undefined;
    if (this.#made !== undefined && this.next !== null) {
      void this.#finishNext(this.#made, this.next);
      this.#made = undefined;
    }
  }

  /**
   * The process that had the NIC crashed while the guest replaced its set by this one. Call it
   * before `takeOver`.
   */
  async prepareNext(next: NicSpec): Promise<void> {
    this.next = next;
    this.#made = await makeSet(this.worker, next);
    await this.worker.request("prepare-set", this.#made.order);
  }

  /** Goes on with that, after `goOn`. */
  async #finishNext(made: MadeSet, next: NicSpec): Promise<void> {
    const finished = finishSet(this.worker, made, (text) => this.say("info", text));
    const wanted = { ...next, socket: resolve(next.socket) };
    try {
      await this.nic.continueReplacing(wanted, finished);
      this.#proving = finished;
    } catch (error) {
      this.say("warn", (error as Error).message);
    }
  }

  /** Once it was handed over: a crash leaves nothing to go on with. */
  async forget(): Promise<void> {
    await this.worker.request("forget");
  }

  /** Stops; client, sockets and their files are another process's. */
  async leave(): Promise<void> {
    this.close();
    await this.worker.stop();
  }

  async stop(): Promise<void> {
    await this.worker.stop().catch(() => {});
  }

  /** Removes its sockets, unless another process is taking them over. */
  close(): void {
    if (this.#isFrozen) {
      this.#inode = 0;
      this.#control?.leave();
    }
    this.#control?.close();
    this.#closeApi?.();
    if (this.#inode !== 0) removeSocket(this.spec.socket, this.#inode);
  }
}

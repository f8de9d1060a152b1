/**
 * A server whose NICs survive the end of its process, because a service manager or `bpfhv keep`
 * holds their descriptors and records. The main thread's part; of a worker's see `keeping.ts`.
 */
import { readRecord } from "../memory/record.ts";
import { close, duplicate, fdTarget } from "../os/fd.ts";
import { takeInherited } from "../os/inherited.ts";
import { Notifier } from "../os/notify.ts";
import { closeInOrder } from "../os/release.ts";
import { completeSpecs } from "./config-file.ts";
import { clientName, type KeepingTask, readKeptNic } from "./keeping.ts";
import { KeptRecord } from "./kept-record.ts";
import type { NicHandOver, NicService, WantedNic } from "./nic-service.ts";
import type { FileAccess } from "./peer-access.ts";
import { readSpec } from "./read-spec.ts";
import type { NicSource } from "./take-over.ts";

const MAX_NICS = 256;
const MAIN = "main";
const nicName = (n: number): string => `nic${n}`;
const controlName = (n: number): string => `${nicName(n)}.control`;

interface KeptNics {
  readonly cwd: string;
  readonly nics: readonly { readonly wanted: WantedNic; readonly control: FileAccess }[];
}

type Log = (level: "info" | "warn", text: string) => void;

export class KeptServer {
  /** What a process before this one has left; null: nothing. */
  readonly source: KeptSource | null;
  readonly #notify: string;
  readonly #notifier: Notifier;
  readonly #main: KeptRecord;
  readonly #records: (KeptRecord | null)[];
  readonly #controls: (FileAccess | undefined)[] = [];

  private constructor(notify: string, inherited: ReadonlyMap<string, number>, log: Log) {
    this.#notify = notify;
    this.#notifier = new Notifier(notify);
    const left = leftBehind(inherited, (why) => log("warn", why));
    this.source = left?.source ?? null;
    if (left === null) this.#forgetAll(inherited);
    else left.source.failed = () => this.#removeAll(inherited);
    this.#main = left?.main ?? this.#create(MAIN);
    this.#records = [...(left?.records ?? [])];
  }

  /**
   * @param env the process's: what it says of descriptors is taken out of it
   * @returns null if nobody keeps anything
   * @throws OsError
   */
  static find(env: NodeJS.ProcessEnv, log: Log): KeptServer | null {
    const inherited = takeInherited(env);
    const { NOTIFY_SOCKET: notify, FDSTORE: room } = env;
    if (notify === undefined || !(Number(room) > 0)) {
      for (const fd of inherited.values()) close(fd);
      return null;
    }
    return new KeptServer(notify, inherited, log);
  }

  #create(name: string): KeptRecord {
    const record = KeptRecord.create(`bpfhv-${name}`);
    this.#store(name, record.fd);
    return record;
  }

  #store(name: string, fd: number): void {
    this.#notifier.send(`FDSTORE=1\nFDNAME=${name}\nFDPOLL=0`, [fd]);
  }

  #remove(name: string): void {
    this.#notifier.send(`FDSTOREREMOVE=1\nFDNAME=${name}`);
  }

  #forgetAll(inherited: ReadonlyMap<string, number>): void {
    this.#removeAll(inherited);
    for (const fd of inherited.values()) closeInOrder(fd);
  }

  /** The next process begins anew. */
  #removeAll(inherited: ReadonlyMap<string, number>): void {
    for (const name of inherited.keys()) this.#remove(name);
  }

  /** For the worker of NIC `n`. */
  taskOf(n: number): KeepingTask {
    this.#records[n] ??= this.#create(nicName(n));
    return { notify: this.#notify, fd: this.#records[n].fd, name: nicName(n) };
  }

  /** NIC `n` has this control socket. */
  controls(n: number, fd: number, file: FileAccess): void {
    this.#controls[n] = file;
    this.#remove(controlName(n));
    this.#store(controlName(n), fd);
  }

  /** Saves what the NICs are to be. */
  save(nics: readonly NicService[]): void {
    const list = nics.map(({ wanted, next }, n) => {
      return { ...wanted, next, control: this.#controls[n] ?? null };
    });
    if (list.every(({ control }) => control !== null)) {
      this.#main.write({ version: 1, cwd: process.cwd(), nics: list });
    }
  }

  ready(): void {
    this.#notifier.send(`READY=1\nMAINPID=${process.pid}`);
  }

  /** The NICs are another process's, or have ended: nothing is left behind. */
  forget(nics: number): void {
    this.#main.clear();
    const names = [MAIN];
    for (let n = 0; n < nics; n++) names.push(nicName(n), controlName(n));
    for (const name of names) this.#remove(name);
  }
}

interface LeftBehind {
  readonly source: KeptSource;
  readonly main: KeptRecord;
  readonly records: readonly KeptRecord[];
}

/** @param complain why nothing can be made of it */
function leftBehind(
  inherited: ReadonlyMap<string, number>,
  complain: (why: string) => void,
): LeftBehind | null {
  const mainFd = inherited.get(MAIN);
  if (mainFd === undefined) return null;
  try {
    const main = KeptRecord.open(mainFd);
    const latest = main.read();
    // A process that ended before it served.
    if (latest === null) return null;
    const { cwd, nics } = readNics(latest.state);
    const records = nics.map((_, n) => KeptRecord.open(need(inherited, nicName(n))));
    const handOvers = nics.map(({ control }, n) => {
      const { names, record } = readKeptNic("kept", records[n].read()?.state ?? null);
      const all = withClient(record, names, clientName(nicName(n)), inherited);
      const fds = [...all, controlName(n)].map((name) => need(inherited, name));
      return { record, control, fds, crashed: true };
    });
    const wanted = nics.map(({ wanted }) => wanted);
    return { source: new KeptSource(wanted, cwd, handOvers), main, records };
  } catch (error) {
    complain(`the NICs of the process before cannot be served on: ${(error as Error).message}`);
    return null;
  }
}

interface Served {
  served?: {
    server?: { connection?: number };
    nic?: { generation?: Partial<SetFields>; upgrade?: unknown };
  };
}

const SET_FIELDS = ["format", "rxBufs", "txBufs", "features"] as const;

export interface SetFields {
  readonly format: string;
  readonly rxBufs: number;
  readonly txBufs: number;
  readonly features: number;
}

/** A client that connected when no state was saved any more. @returns all names */
function withClient(
  record: unknown,
  names: readonly string[],
  client: string,
  inherited: ReadonlyMap<string, number>,
): readonly string[] {
  const server = (record as Served | null)?.served?.server;
  if (server?.connection !== -1 || !inherited.has(client)) return names;
  server.connection = names.length;
  return [...names, client];
}

function need(inherited: ReadonlyMap<string, number>, name: string): number {
  const fd = inherited.get(name);
  if (fd === undefined) throw new Error(`the descriptor "${name}" is missing`);
  return fd;
}

function readNics(value: unknown): KeptNics {
  const { cwd, list } = readRecord("kept server", value, 1, (record) => ({
    cwd: record.text("cwd", 4096),
    list: record.list("nics", MAX_NICS, (item) => ({
      spec: item.inner("spec"),
      next: item.inner("next"),
      metadata: item.flag("metadata"),
      control: item.inner("control"),
    })),
  }));
  const specs = completeSpecs(list.map(({ spec }) => readSpec(spec)));
  const nics = list.map(({ next, metadata, control }, i) => {
    const other = next === null ? null : completeSpecs([readSpec(next)])[0];
    return { wanted: { spec: specs[i], next: other, metadata }, control: readAccess(control) };
  });
  return { cwd, nics };
}

function readAccess(value: unknown): FileAccess {
  const { mode, uid, gid } = (value ?? {}) as Partial<FileAccess>;
  for (const each of [mode, uid, gid]) {
    if (!Number.isInteger(each)) throw new Error("the access to a control socket is wrong");
  }
  return { mode: mode!, uid: uid!, gid: gid! };
}

/** The NICs of a process that has ended. */
export class KeptSource implements NicSource {
  readonly nics: readonly WantedNic[];
  readonly cwd: string;
  readonly rehearses = false;
  readonly otherwise = "the NICs begin anew, without the guests that had them";
  /** What else is to be done when this process cannot go on with them. */
  failed: () => void = () => {};
  readonly #handOvers: readonly NicHandOver[];
  /** Duplicates: whatever a worker does with its own, QEMU's connection is to end in order. */
  readonly #sockets: number[];

  constructor(nics: readonly WantedNic[], cwd: string, handOvers: readonly NicHandOver[]) {
    this.nics = nics;
    this.cwd = cwd;
    this.#handOvers = handOvers;
    const fds = handOvers.flatMap(({ fds }) => fds);
    this.#sockets = fds.filter((fd) => fdTarget(fd).startsWith("socket:")).map(duplicate);
  }

  async records(): Promise<readonly NicHandOver[]> {
    return this.#handOvers;
  }

  /** Which set the NIC had: a replacement may have been complete, and the process not know. */
  isOf(n: number, set: SetFields): boolean {
    const generation = this.#nic(n).generation ?? {};
    return SET_FIELDS.every((field) => generation[field] === set[field]);
  }

  /** The guest had agreed to the next set, and not moved all rings. */
  isReplacing(n: number): boolean {
    return this.#nic(n).upgrade !== undefined;
  }

  /** Not checked: for choices whose outcome is. */
  #nic(n: number): { generation?: Partial<SetFields>; upgrade?: unknown } {
    return (this.#handOvers[n].record as Served | null)?.served?.nic ?? {};
  }

  async commit(): Promise<void> {
    for (const fd of this.#sockets.splice(0)) close(fd);
  }

  async fail(): Promise<void> {
    for (const fd of this.#sockets.splice(0)) closeInOrder(fd);
    this.failed();
  }
}

/**
 * A worker's part in surviving a crash of its process: keeps the NIC's state in a `KeptRecord`, and
 * the descriptors that it names with the keeper, so that both are there when the process is not.
 * Saved after each message of the VMM that changes anything, before it is answered; after each
 * request of the main thread; and once a second, for the counters.
 */
import { type RecordReader, readRecord, SavedFds } from "../memory/record.ts";
import { atClose } from "../os/ledger.ts";
import { Notifier } from "../os/notify.ts";
import { MessageJournal } from "../vfio-user/journal.ts";
import { KeptRecord } from "./kept-record.ts";

/** What the worker is told: plain data. */
export interface KeepingTask {
  /** Of the manager or keeper: NOTIFY_SOCKET. */
  readonly notify: string;
  /** Of the record: the worker maps it itself. */
  readonly fd: number;
  /** Begins the names of the NIC's descriptors. */
  readonly name: string;
}

/** Crashes that the NIC has survived. */
export interface CrashCounts {
  readonly times: number;
  /** Packets that may have been lost by them. */
  readonly lost: number;
}

export interface KeptNic {
  readonly version: 1;
  readonly serial: number;
  readonly crash: CrashCounts;
  /** The process has stopped in order, between two turns. */
  readonly orderly: boolean;
  /** Names of the descriptors, by their place. */
  readonly names: readonly string[];
  readonly record: unknown;
}

const MAX_NAMES = 8192;

/** Of the VMM's connection: it may be there before a state names it. */
export const clientName = (nic: string): string => `${nic}.client`;

/** Checks such a state, up to the record, which its owners check. @throws RecordError */
export function readKeptNic(name: string, value: unknown): KeptNic {
  return readRecord(name, value, 1, (state) => ({
    version: 1,
    serial: state.whole("serial", 0, Number.MAX_SAFE_INTEGER),
    crash: readCounts(state),
    orderly: state.flag("orderly"),
    names: state.texts("names", MAX_NAMES, 64),
    record: state.inner("record"),
  }));
}

function readCounts(state: RecordReader): CrashCounts {
  const [times, lost] = state.counts("crash", ["times", "lost"]);
  return { times, lost };
}

export interface KeepingOptions {
  readonly task: KeepingTask;
  readonly log: (level: "info" | "warn", text: string) => void;
}

export class Keeping {
  readonly journal: MessageJournal;
  crash: CrashCounts = { times: 0, lost: 0 };
  /** Adds the state's descriptors, and returns it. @throws RecordError */
  save: (fds: SavedFds) => unknown = () => null;
  readonly #options: KeepingOptions;
  readonly #record: KeptRecord;
  readonly #notifier: Notifier;
  readonly #progress: Int32Array[] = [];
  /** Names of the descriptors that the keeper has. */
  readonly #names = new Map<number, string>();
  #stale: string[] = [];
  #serial = 0;
  #isOn = false;
  #orderly = false;
  #complaint = "";

  /** @throws OsError */
  constructor(options: KeepingOptions) {
    this.#options = options;
    const { fd, notify } = options.task;
    this.#record = KeptRecord.open(fd);
    this.journal = new MessageJournal(this.#record.memory);
    this.journal.commit = (executed) => this.snapshot(executed);
    this.journal.accepted = (fd) => this.#accepted(fd);
    this.#notifier = new Notifier(notify);
    atClose((fd) => this.#closing(fd));
  }

  /** See `PROGRESS`. */
  progressOf(pair: number): Int32Array {
    this.#progress[pair] ??= this.#record.progressOf(pair);
    return this.#progress[pair];
  }

  /** The number may be another file's soon. */
  #closing(fd: number): void {
    const name = this.#names.get(fd);
    if (name === undefined) return;
    this.#names.delete(fd);
    this.#stale.push(name);
  }

  /** From here on the state is this process's to save. */
  start(): void {
    this.#isOn = true;
    this.#orderly = false;
    this.snapshot();
  }

  /** The loop is paused, and another process may go on. */
  pause(): void {
    this.#orderly = true;
    this.snapshot();
  }

  /** Saves the state as it is now. Never throws: packets come first. */
  snapshot(executed = this.journal.executed): void {
    if (!this.#isOn) return;
    try {
      const fds = new SavedFds();
      const record = this.save(fds);
      const names = fds.fds.map((fd) => this.#nameOf(fd));
      const { crash } = this;
      const [serial, orderly] = [this.#serial, this.#orderly];
      const state: KeptNic = { version: 1, serial, crash, orderly, names, record };
      if (!this.#record.write(state, executed)) throw new Error("its state is too large");
      this.#forgetStale();
    } catch (error) {
      this.#cannot((error as Error).message);
    }
  }

  /** Before anything else: with this process it would lose its connection. */
  #accepted(fd: number): void {
    if (!this.#isOn) return;
    try {
      this.#forgetStale();
      this.#store(fd, clientName(this.#options.task.name));
    } catch (error) {
      this.#cannot((error as Error).message);
    }
  }

  /** @returns the name that the keeper has the descriptor by */
  #nameOf(fd: number): string {
    const known = this.#names.get(fd);
    return known ?? this.#store(fd, `${this.#options.task.name}.${++this.#serial}`);
  }

  #store(fd: number, name: string): string {
    this.#notifier.send(`FDSTORE=1\nFDNAME=${name}\nFDPOLL=0`, [fd]);
    this.#names.set(fd, name);
    return name;
  }

  #forgetStale(): void {
    for (const name of this.#stale.splice(0)) this.#remove(name);
  }

  #remove(name: string): void {
    this.#notifier.send(`FDSTOREREMOVE=1\nFDNAME=${name}`);
  }

  #cannot(why: string): void {
    // An older state would do harm: the VMM has gone on since.
    this.#record.clear();
    if (why === this.#complaint) return;
    this.#complaint = why;
    this.#options.log("warn", `a crash of the server would take the NIC away: ${why}`);
  }

  /**
   * The latest state of a process that crashed was restored with these descriptors.
   * @param lost packets that may have been lost
   */
  restored(fds: readonly number[], lost: number): void {
    const { serial, names, crash, orderly } = this.#latest();
    this.#serial = serial;
    this.crash = orderly ? crash : { times: crash.times + 1, lost: crash.lost + lost };
    for (const [i, name] of names.entries()) this.#names.set(fds[i], name);
  }

  #latest(): KeptNic {
    const latest = this.#record.read();
    if (latest === null) throw new Error("the record has no state");
    return readKeptNic("kept", latest.state);
  }

  /** Bytes of the client's messages that are in the latest state. */
  get executed(): number {
    return this.#record.read()?.executed ?? 0;
  }

  /** The NIC is another process's: nothing of it is to be found after the end of this one. */
  forget(): void {
    this.#isOn = false;
    this.#record.clear();
    for (const name of this.#names.values()) this.#remove(name);
    this.#names.clear();
    this.#forgetStale();
  }
}

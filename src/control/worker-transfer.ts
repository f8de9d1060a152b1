/**
 * A worker's part in handing its NIC over to another process, and in taking one over. From `freeze`
 * on, and from `take-over` on, the loop is paused between two turns: no message is half handled, no
 * batch in flight. It goes on at `go-on`; a worker that is stopped in the pause leaves client and
 * sockets to the other process.
 */
import type { Loop } from "../engine/loop.ts";
import type { QueuePair } from "../engine/pair.ts";
import type { Served, Verbs } from "../frontends/served.ts";
import { ClaimedFds, readRecord, SavedFds } from "../memory/record.ts";
import { duplicate } from "../os/fd.ts";
import { recordFd } from "../os/ledger.ts";
import type { Keeping } from "./keeping.ts";
import type { PortsRecord, WorkerPorts } from "./worker-ports.ts";

export interface WorkerRecord {
  readonly version: 1;
  /** Of the frontend (`Transfer.save`). */
  readonly served: unknown;
  readonly ports: PortsRecord;
}

/** A record, and the descriptors that it names by their place. */
export interface Frozen {
  readonly record: WorkerRecord;
  readonly fds: readonly number[];
}

interface Incoming {
  readonly record: unknown;
  /** This worker's from here on. */
  readonly fds: readonly number[];
  /** The process that saved it has crashed. */
  readonly crashed?: boolean;
}

export interface WorkerTransferOptions {
  readonly served: Served;
  readonly ports: WorkerPorts;
  readonly pairs: readonly QueuePair[];
  readonly loop: () => Loop;
  /** null: nobody keeps the NIC's state. */
  readonly keeping: Keeping | null;
  /** Makes another NIC of the same kind, which is connected to nothing. */
  readonly twin: () => Served;
}

/** Verbs that a paused worker carries out. */
const WHILE_FROZEN: ReadonlySet<string> = new Set(["go-on", "stop", "forget"]);

export class WorkerTransfer {
  frozen = false;
  /** The loop was ended for the pause: by now it may have been told to go on. */
  stopped = false;
  readonly #options: WorkerTransferOptions;

  constructor(options: WorkerTransferOptions) {
    this.#options = options;
  }

  readonly verbs: Verbs = {
    freeze: (): Frozen => {
      const frozen = this.#save();
      this.#pause();
      this.#options.keeping?.pause();
      return frozen;
    },
    /** The state, while the NIC runs on; the caller closes the descriptors. */
    sketch: (): Frozen => {
      const { record, fds } = this.#save();
      return { record, fds: fds.map(duplicate) };
    },
    rehearse: ({ record, fds }: Incoming): void => {
      this.#rehearse(record, fds);
    },
    "take-over": ({ record, fds, crashed = false }: Incoming): void => {
      const journal = this.#options.keeping?.journal;
      if (journal !== undefined) journal.recovers = crashed;
      // Also after a failure: the client is the other process's.
      this.#pause();
      this.#restore(record, fds);
      if (crashed) this.#recover(fds);
    },
    "go-on": () => {
      this.frozen = false;
      this.#options.keeping?.start();
    },
    /** The NIC is another process's. */
    forget: () => this.#options.keeping?.forget(),
  };

  /** @throws Error if the verb must wait */
  check(verb: string): void {
    if (!this.frozen || WHILE_FROZEN.has(verb)) return;
    throw new Error("another process is taking the NIC over: ask again");
  }

  #pause(): void {
    this.frozen = true;
    this.stopped = true;
    this.#options.loop().stop();
  }

  /** After a crash: messages that were handled in part, packets that were on their way. */
  #recover(fds: readonly number[]): void {
    const { keeping, pairs, served } = this.#options;
    if (keeping === null) throw new Error("this worker keeps no state");
    let lost = 0;
    for (const [i, pair] of pairs.entries()) lost += pair.resumeFrom(keeping.progressOf(i));
    keeping.restored(fds, lost);
    served.transfer?.recover(keeping.executed);
  }

  /** For the keeper, at any time. */
  saveForCrash(fds: SavedFds): WorkerRecord {
    return this.#saveTo(fds, true);
  }

  #save(): Frozen {
    const fds = new SavedFds();
    const record = this.#saveTo(fds, false);
    return { record, fds: fds.fds };
  }

  #saveTo(fds: SavedFds, crash: boolean): WorkerRecord {
    const { served, ports } = this.#options;
    if (served.transfer === undefined) throw new Error("only NICs for vfio-user can be taken over");
    return {
      version: 1,
      served: served.transfer.save(fds, crash),
      ports: ports.save(fds, crash),
    };
  }

  #rehearse(value: unknown, fds: readonly number[]): void {
    const { ports, twin } = this.#options;
    const claimed = new ClaimedFds(fds);
    const { transfer } = twin();
    try {
      readRecord("record", value, 1, (record) => {
        ports.rehearse("record.ports", record.inner("ports"), claimed);
        transfer?.rehearse("record.served", record.inner("served"), claimed);
      });
    } finally {
      transfer?.leave();
      claimed.closeRest();
    }
  }

  #restore(value: unknown, fds: readonly number[]): void {
    const { served, ports, pairs, loop } = this.#options;
    const claimed = new ClaimedFds(fds);
    readRecord("record", value, 1, (record) => {
      const usePorts = ports.prepare("record.ports", record.inner("ports"), claimed);
      served.transfer?.restore("record.served", record.inner("served"), claimed);
      // After the NIC: the ports take the offloads that its guest has negotiated.
      usePorts(pairs, loop());
    });
    // Not before: what a worker leaves behind is shut down, and the other process may go on.
    for (const fd of fds) recordFd(fd);
    claimed.closeRest();
  }
}

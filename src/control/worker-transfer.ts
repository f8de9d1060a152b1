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
}

export interface WorkerTransferOptions {
  readonly served: Served;
  readonly ports: WorkerPorts;
  readonly pairs: readonly QueuePair[];
  readonly loop: () => Loop;
  /** Makes another NIC of the same kind, which is connected to nothing. */
  readonly twin: () => Served;
}

/** Verbs that a paused worker carries out. */
const WHILE_FROZEN: ReadonlySet<string> = new Set(["go-on", "stop"]);

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
    "take-over": ({ record, fds }: Incoming): void => {
      // Also after a failure: the client is the other process's.
      this.#pause();
      this.#restore(record, fds);
    },
    "go-on": () => {
      this.frozen = false;
    },
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

  #save(): Frozen {
    const { served, ports } = this.#options;
    if (served.transfer === undefined) throw new Error("only NICs for vfio-user can be taken over");
    const fds = new SavedFds();
    const record = {
      version: 1,
      served: served.transfer.save(fds),
      ports: ports.save(fds),
    } as const;
    return { record, fds: fds.fds };
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

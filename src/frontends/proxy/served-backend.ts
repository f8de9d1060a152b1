/** A backend of the original QEMU fork's NIC, as the harness of its worker runs it. */
import type { QueuePair } from "../../engine/pair.ts";
import { counted, droppedIn, unsharedMemory } from "../complaints.ts";
import type { Frontend, Parts, Served } from "../served.ts";
import { BackendConnection } from "./connection.ts";
import { dumpQueues, proxyStatus, RateReport } from "./status.ts";

export interface ServedBackendOptions {
  readonly features: number;
  readonly path: string;
  readonly reconnect: boolean;
  readonly allowUnverified: boolean;
  readonly allowUnsealed: boolean;
  /** Longest spin before sleeping; Infinity: the loop never sleeps, and needs no kicks. */
  readonly spinUs: number;
  readonly statistics: boolean;
  readonly verbosity: number;
}

export const servedBackend: Frontend<ServedBackendOptions> = {
  pairs: () => 1,
  serve: (options, parts) => {
    const [pair] = parts.pairs;
    const trace = options.verbosity >= 2 ? parts.trace : undefined;
    const connection = new BackendConnection({
      ...{ device: parts.format, pair, features: options.features, path: options.path },
      reconnect: options.reconnect,
      allowUnverified: options.allowUnverified,
      allowUnsealed: options.allowUnsealed,
      busy: options.spinUs === Number.POSITIVE_INFINITY,
      log: parts.log,
      ended: parts.stop,
      ...(trace === undefined ? {} : { trace }),
    });
    const { backend } = connection;
    const reports = new Reports(options, parts, connection);
    return {
      control: connection,
      fire: (vector) => {
        backend.fire(vector);
        trace?.(`interrupt ${backend.queues[vector].name}`);
      },
      status: (loop) => proxyStatus(connection, parts.format.name, pair, loop),
      verbs: { "signal-upgrade": () => signalUpgrade(connection, parts) },
      complaints: complaintsOf(connection, pair),
      // The protocol does not tell the guest about its link.
      followLink: () => {},
      housekeeping: (now) => reports.housekeeping(now),
      close: () => closeInOrder(connection, parts),
    };
  },
};

/** Between reports of rates; the first comes as long after the last request. */
const REPORT_MS = 2000;

/** What `-S` and `-v -v` print periodically. */
class Reports {
  readonly #options: ServedBackendOptions;
  readonly #connection: BackendConnection;
  readonly #pair: QueuePair;
  readonly #print: Parts["print"];
  readonly #rates: RateReport;
  #reportedAt = performance.now();

  constructor(options: ServedBackendOptions, parts: Parts, connection: BackendConnection) {
    this.#options = options;
    this.#connection = connection;
    this.#pair = parts.pairs[0];
    this.#print = parts.print;
    this.#rates = new RateReport(this.#pair);
  }

  housekeeping(now: number): void {
    const { backend, lastMessageAt } = this.#connection;
    if (!backend.running || now - lastMessageAt < REPORT_MS || now - this.#reportedAt < REPORT_MS)
      return;
    this.#reportedAt = now;
    if (this.#options.statistics) this.#print(this.#rates.next());
    if (this.#options.verbosity >= 2) this.#print(dumpQueues(this.#pair));
  }
}

/** Asks the VMM for an upgrade. */
function signalUpgrade({ backend }: BackendConnection, { log }: Parts): void {
  if (!backend.signalUpgrade()) log("warn", "no upgrade: the VMM gave no descriptor for it");
}

function complaintsOf({ backend }: BackendConnection, pair: QueuePair): Served["complaints"] {
  const detail = (name: string): string =>
    name === "dropBadAddress" ? unsharedMemory(backend.memory.ranges) : "";
  return [
    ...droppedIn([pair], detail),
    ...counted(backend.counters, { refused: "requests refused" }, () => backend.lastRefusal),
    ...counted(backend.counters, { interruptsDropped: "interrupts without a descriptor" }),
  ];
}

function closeInOrder(connection: BackendConnection, { log }: Parts): void {
  connection.close();
  const { unsentAtStop } = connection.backend.counters;
  if (unsentAtStop > 0) log("warn", `${unsentAtStop} packets could not be sent before the stop`);
}

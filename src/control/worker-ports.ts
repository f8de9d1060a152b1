/**
 * The ports of a worker's queue pairs: opened behind their policies, exchanged while packets flow,
 * handed over to another process, closed at the end.
 */

import type { Loop } from "../engine/loop.ts";
import type { QueuePair } from "../engine/pair.ts";
import { DROP_PORT, newQueueCounters } from "../memory/counters.ts";
import { type ClaimedFds, RecordError, readRecord, type SavedFds } from "../memory/record.ts";
import { adoptPorts, continuing, openPorts, type PortSpec } from "../net/create.ts";
import { DownPort } from "../net/down.ts";
import {
  type OpenPolicies,
  openPolicies,
  type PoliciesRecord,
  type PolicySpec,
  type SharedState,
  shareState,
} from "../net/policies/index.ts";
import type { PairCounters } from "../net/policies/policy.ts";
import type { RateSpec } from "../net/policies/rate-limit.ts";
import type { Port } from "../net/port.ts";
import { SucceedingPort } from "../net/succeeding.ts";

export interface WorkerPortsOptions {
  readonly port: PortSpec;
  readonly pairs: number;
  /** Do packets of the device carry metadata? */
  readonly metadata: boolean;
  /** In front of each port, the first one next to the ring. */
  readonly policies?: readonly PolicySpec[];
  /** Next to each port: what a policy drops does not count. null: no limits. */
  readonly rate?: RateSpec | null;
  /** Default: true, the link is the ports'. */
  readonly linkUp?: boolean;
  /** The ports are another process's, and come by `prepare`. */
  readonly takesOver?: boolean;
  /** Where the port of a pair counts: see `PROGRESS`. */
  readonly progressOf?: (pair: number) => Int32Array;
}

export interface PortsRecord {
  readonly version: 1;
  readonly metadata: boolean;
  /** Of each queue pair. */
  readonly ports: readonly {
    /** Place of the descriptor; -1: the port needs none. */
    readonly fd: number;
    readonly policies: PoliciesRecord;
  }[];
}

/** So long a guest without buffers may take to have what an old port holds for it. */
const LEAVE_MS = 1000;

export class WorkerPorts {
  /** Of each pair; policies count what they drop in them, too. */
  readonly counters: readonly PairCounters[];
  readonly #options: WorkerPortsOptions;
  #spec: PortSpec;
  #policies: readonly PolicySpec[];
  #rate: RateSpec | null;
  #shared: SharedState = new Map();
  #up: boolean;
  /** Without policies. */
  #bare: readonly Port[];
  #open: readonly OpenPolicies[];
  /** Ports that take the place of others, and when the old one is closed at the latest. */
  readonly #leaving = new Map<SucceedingPort, { pair: QueuePair; until: number }>();
  /** Notices of ports that are closed. */
  readonly #left: string[] = [];

  /** @throws as `openPorts` */
  constructor(options: WorkerPortsOptions) {
    this.#options = options;
    this.#spec = options.port;
    this.#policies = options.policies ?? [];
    this.#rate = options.rate ?? null;
    this.#up = options.linkUp ?? true;
    const { pairs, metadata, takesOver = false } = options;
    this.counters = Array.from({ length: pairs }, () => ({
      ...{ tx: newQueueCounters(), rx: newQueueCounters() },
    }));
    this.#bare = openPorts(takesOver ? { kind: "null" } : options.port, pairs, metadata);
    this.#open = this.#behindPolicies(this.#bare);
  }

  get ports(): readonly Port[] {
    return this.#open.map(({ port }) => port);
  }

  #behindPolicies(ports: readonly Port[]): OpenPolicies[] {
    const { progressOf } = this.#options;
    if (progressOf !== undefined) {
      for (const [i, port] of ports.entries()) {
        if (port.progress !== undefined) port.progress = progressOf(i);
      }
    }
    const specs: PolicySpec[] = [...this.#policies];
    if (this.#rate !== null) specs.push(this.#rate);
    this.#shared = shareState(specs, this.#shared);
    const shared = this.#shared;
    return ports.map((port, i) => {
      const behind = this.#up ? port : new DownPort(port);
      return openPolicies(specs, behind, this.counters[i], { shared });
    });
  }

  /**
   * Opens other ports for pairs that run. An old one is closed when the guest has what it held.
   * @throws as `openPorts`; then the old ones stay
   */
  exchange(spec: PortSpec, pairs: readonly QueuePair[], loop: Loop): void {
    // A port that is still leaving may be the one that is wanted again.
    for (const pair of pairs) pair.takeWaiting();
    this.#leaveAll();
    const next = openPorts(spec, pairs.length, this.#options.metadata);
    loop.forgetPorts();
    const before = this.ports;
    this.#bare = next;
    this.#open = this.#behindPolicies(next);
    for (const [i, pair] of pairs.entries()) this.#succeed(pair, before[i], this.#open[i].port);
    this.#spec = spec;
  }

  /**
   * @param crash for after a crash of this process: what an exchanged port holds is lost then
   * @throws RecordError if another process could not go on with the ports, now or ever
   */
  save(fds: SavedFds, crash = false): PortsRecord {
    const continues = continuing(this.#spec);
    if (continues === undefined) {
      const what = `the port "${this.#spec.kind}" would begin anew`;
      throw new RecordError(`${what}: set another one before (bpfhv set-port)`);
    }
    if (this.#leaving.size > 0 && !crash) {
      throw new RecordError("the port that was exchanged holds packets yet: ask again in a second");
    }
    const { metadata } = this.#options;
    const ports = this.#open.map(({ save }, i) => ({
      fd: continues === "by itself" ? -1 : fds.add(this.#bare[i].fd),
      policies: save(),
    }));
    return { version: 1, metadata, ports };
  }

  /**
   * Checks a record.
   * @returns the function that gives the pairs their ports
   * @throws RecordError, OsError; then nothing has changed
   */
  prepare(name: string, value: unknown, claimed: ClaimedFds) {
    const { bare, open, commits } = this.#prepare(name, value, claimed);
    return (pairs: readonly QueuePair[], loop: Loop): void => {
      for (const commit of commits) commit();
      loop.forgetPorts();
      const before = this.ports;
      this.#bare = bare;
      this.#open = open;
      for (const [i, pair] of pairs.entries()) pair.setPort(open[i].port);
      for (const port of before) port.close();
    };
  }

  /** Checks a record, and closes its descriptors. @throws as `prepare` */
  rehearse(name: string, value: unknown, claimed: ClaimedFds): void {
    for (const { port } of this.#prepare(name, value, claimed).open) port.close();
  }

  #prepare(name: string, value: unknown, claimed: ClaimedFds) {
    const { pairs: count, metadata } = this.#options;
    const { fds, policies } = readRecord(name, value, 1, (record) => {
      if (record.flag("metadata") !== metadata) record.refuse("metadata", `use ${metadata}`);
      const policies: unknown[] = [];
      const fds = record.list("ports", count, (item) => {
        policies.push(item.inner("policies"));
        return claimed.claim(item, "fd");
      });
      if (fds.length !== count) record.refuse("ports", `use ${count}`);
      return { fds, policies };
    });
    const bare = adoptPorts(this.#spec, fds, metadata);
    const open = this.#behindPolicies(bare);
    const commits = open.map((each, i) => {
      return each.prepare(`${name}.ports[${i}].policies`, policies[i]);
    });
    return { bare, open, commits };
  }

  #succeed(pair: QueuePair, old: Port, next: Port): void {
    this.#left.push(...takeNotices([old]));
    if (pair.rx.ring === null) {
      pair.setPort(next);
      return old.close();
    }
    const port = new SucceedingPort(next, old, () => {
      this.#leaving.delete(port);
      // Policies may have been put in front of it since.
      if (pair.port === port) pair.port = next;
    });
    this.#leaving.set(port, { pair, until: performance.now() + LEAVE_MS });
    pair.succeed(port);
    // What it received since it was drained; the guest may have buffers for it.
    pair.takeWaiting();
  }

  /** A guest without buffers does not keep old ports open. */
  #leaveAll(now = Number.POSITIVE_INFINITY): void {
    for (const [port, { pair, until }] of [...this.#leaving]) {
      if (now < until) continue;
      const { dropped } = port;
      port.leave();
      pair.rx.counters[DROP_PORT] += port.dropped - dropped;
    }
  }

  /** Puts other policies in front of the ports that are open; tokens that were taken stay taken. */
  setPolicies(policies: readonly PolicySpec[], pairs: readonly QueuePair[]): void {
    this.#policies = policies;
    this.#replacePolicies(pairs);
  }

  /** While the link is down, packets go nowhere, and the ports stay open. */
  setLink(up: boolean, pairs: readonly QueuePair[]): void {
    this.#up = up;
    this.#replacePolicies(pairs);
  }

  /** @param rate null: no limits */
  setRate(rate: RateSpec | null, pairs: readonly QueuePair[]): void {
    this.#rate = rate;
    this.#replacePolicies(pairs);
  }

  #replacePolicies(pairs: readonly QueuePair[]): void {
    for (const pair of pairs) pair.takeWaiting();
    this.#leaveAll();
    const before = this.#open;
    this.#open = this.#behindPolicies(this.#bare);
    for (const [i, pair] of pairs.entries()) pair.setPolicies(this.#open[i].port);
    for (const open of before) open.release();
  }

  /** Takes what ports have to report since the last call, for the log. */
  notices(): string[] {
    this.#leaveAll(performance.now());
    return [...this.#left.splice(0), ...takeNotices(this.#bare)];
  }

  close(): void {
    this.#leaveAll();
    for (const { port } of this.#open) port.close();
  }
}

function takeNotices(ports: readonly Port[]): string[] {
  return ports.map((port) => port.takeNotice()).filter((text) => text !== "");
}

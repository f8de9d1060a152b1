/**
 * The ports of a worker's queue pairs: opened behind their policies, exchanged while packets flow,
 * closed at the end.
 */

import type { Loop } from "../engine/loop.ts";
import type { QueuePair } from "../engine/pair.ts";
import { newQueueCounters } from "../memory/counters.ts";
import { openPorts, type PortSpec } from "../net/create.ts";
import {
  type OpenPolicies,
  openPolicies,
  type PolicySpec,
  type SharedState,
  shareState,
} from "../net/policies/index.ts";
import type { PairCounters } from "../net/policies/policy.ts";
import type { RateSpec } from "../net/policies/rate-limit.ts";
import type { Port } from "../net/port.ts";

export interface WorkerPortsOptions {
  readonly port: PortSpec;
  readonly pairs: number;
  /** Do packets of the device carry metadata? */
  readonly metadata: boolean;
  /** In front of each port, the first one next to the ring. */
  readonly policies?: readonly PolicySpec[];
  /** Next to each port: what a policy drops does not count. null: no limits. */
  readonly rate?: RateSpec | null;
}

export class WorkerPorts {
  /** Of each pair; policies count what they drop in them, too. */
  readonly counters: readonly PairCounters[];
  readonly #options: WorkerPortsOptions;
  #policies: readonly PolicySpec[];
  #rate: RateSpec | null;
  #shared: SharedState = new Map();
  /** Without policies. */
  #bare: readonly Port[];
  #open: readonly OpenPolicies[];
  /** Notices of ports that are closed. */
  readonly #left: string[] = [];

  /** @throws as `openPorts` */
  constructor(options: WorkerPortsOptions) {
    this.#options = options;
    this.#policies = options.policies ?? [];
    this.#rate = options.rate ?? null;
    const { pairs, metadata } = options;
    this.counters = Array.from({ length: pairs }, () => ({
      ...{ tx: newQueueCounters(), rx: newQueueCounters() },
    }));
    this.#bare = openPorts(options.port, pairs, metadata);
    this.#open = this.#behindPolicies(this.#bare);
  }

  get ports(): readonly Port[] {
    return this.#open.map(({ port }) => port);
  }

  #behindPolicies(ports: readonly Port[]): OpenPolicies[] {
    const specs: PolicySpec[] = [...this.#policies];
    if (this.#rate !== null) specs.push(this.#rate);
    this.#shared = shareState(specs, this.#shared);
    const shared = this.#shared;
    return ports.map((port, i) => {
      return openPolicies(specs, port, this.counters[i], { shared });
    });
  }

  /**
   * Opens other ports for pairs that run, and closes the old ones.
   * @throws as `openPorts`; then the old ones stay
   */
  exchange(spec: PortSpec, pairs: readonly QueuePair[], loop: Loop): void {
    const { metadata } = this.#options;
    const next = openPorts(spec, pairs.length, metadata);
    for (const pair of pairs) pair.takeWaiting();
    loop.forgetPorts();
    const before = this.ports;
    this.#bare = next;
    this.#open = this.#behindPolicies(next);
    for (const [i, pair] of pairs.entries()) pair.setPort(this.#open[i].port);
    this.#left.push(...takeNotices(before));
    for (const port of before) port.close();
  }

  /** Puts other policies in front of the ports that are open; tokens that were taken stay taken. */
  setPolicies(policies: readonly PolicySpec[], pairs: readonly QueuePair[]): void {
    this.#policies = policies;
    this.#replacePolicies(pairs);
  }

  /** @param rate null: no limits */
  setRate(rate: RateSpec | null, pairs: readonly QueuePair[]): void {
    this.#rate = rate;
    this.#replacePolicies(pairs);
  }

  #replacePolicies(pairs: readonly QueuePair[]): void {
    const before = this.#open;
    this.#open = this.#behindPolicies(this.#bare);
    for (const [i, pair] of pairs.entries()) pair.setPolicies(this.#open[i].port);
    for (const open of before) open.release();
  }

  /** Takes what ports have to report since the last call, for the log. */
  notices(): string[] {
    return [...this.#left.splice(0), ...takeNotices(this.#bare)];
  }

  close(): void {
    for (const { port } of this.#open) port.close();
  }
}

function takeNotices(ports: readonly Port[]): string[] {
  return ports.map((port) => port.takeNotice()).filter((text) => text !== "");
}

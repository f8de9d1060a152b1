/**
 * The ports of a worker's queue pairs: opened behind their policies, exchanged while packets flow,
 * closed at the end.
 */

import type { Loop } from "../engine/loop.ts";
import type { QueuePair } from "../engine/pair.ts";
import { newQueueCounters, type QueueCounters } from "../memory/counters.ts";
import { openPorts, type PortSpec } from "../net/create.ts";
import { openPolicies, type PolicySpec } from "../net/policies/index.ts";
import type { Port } from "../net/port.ts";

export interface WorkerPortsOptions {
  readonly port: PortSpec;
  readonly pairs: number;
  /** Do packets of the device carry metadata? */
  readonly metadata: boolean;
  /** In front of each port, the first one next to the ring. */
  readonly policies?: readonly PolicySpec[];
}

export class WorkerPorts {
  /** Of each pair; policies count what they drop in them, too. */
  readonly txCounters: readonly QueueCounters[];
  readonly #options: WorkerPortsOptions;
  #ports: readonly Port[];
  /** Notices of ports that are closed. */
  readonly #left: string[] = [];

  /** @throws as `openPorts` */
  constructor(options: WorkerPortsOptions) {
    this.#options = options;
    this.txCounters = Array.from({ length: options.pairs }, newQueueCounters);
    this.#ports = this.#open(options.port);
  }

  get ports(): readonly Port[] {
    return this.#ports;
  }

  #open(spec: PortSpec): Port[] {
    const { pairs, metadata, policies = [] } = this.#options;
    const ports = openPorts(spec, pairs, metadata);
    return ports.map((port, i) => openPolicies(policies, port, this.txCounters[i]).port);
  }

  /**
   * Opens other ports for pairs that run, and closes the old ones.
   * @throws as `openPorts`; then the old ones stay
   */
  exchange(spec: PortSpec, pairs: readonly QueuePair[], loop: Loop): void {
    const next = this.#open(spec);
    for (const pair of pairs) pair.takeWaiting();
    loop.forgetPorts();
    for (const [i, pair] of pairs.entries()) pair.setPort(next[i]);
    this.#left.push(...takeNotices(this.#ports));
    this.close();
    this.#ports = next;
  }

  /** Takes what ports have to report since the last call, for the log. */
  notices(): string[] {
    return [...this.#left.splice(0), ...takeNotices(this.#ports)];
  }

  close(): void {
    for (const port of this.#ports) port.close();
  }
}

function takeNotices(ports: readonly Port[]): string[] {
  return ports.map((port) => port.takeNotice()).filter((text) => text !== "");
}

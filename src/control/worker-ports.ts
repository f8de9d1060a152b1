/**
 * The ports of a worker's queue pairs: opened with their guards, exchanged while packets flow,
 * closed at the end.
 */

import type { Loop } from "../engine/loop.ts";
import type { QueuePair } from "../engine/pair.ts";
import { SpoofGuard, type SpoofRules } from "../engine/spoof-guard.ts";
import { newQueueCounters, type QueueCounters } from "../memory/counters.ts";
import { openPorts, type PortSpec } from "../net/create.ts";
import type { Port } from "../net/port.ts";

export interface WorkerPortsOptions {
  readonly port: PortSpec;
  readonly pairs: number;
  /** Do packets of the device carry metadata? */
  readonly metadata: boolean;
  readonly antiSpoof?: SpoofRules;
}

/** The longest queue of a TAP is a thousand packets; a source has no end. */
const MAX_WAITING = 2048;

export class WorkerPorts {
  /** Of each pair; the guards count in them, too. */
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
    const { pairs, metadata, antiSpoof: rules } = this.#options;
    const ports = openPorts(spec, pairs, metadata);
    if (rules === undefined) return ports;
    return ports.map((port, i) => new SpoofGuard(port, rules, this.txCounters[i]));
  }

  /**
   * Opens other ports for pairs that run, and closes the old ones.
   * @throws as `openPorts`; then the old ones stay
   */
  exchange(spec: PortSpec, pairs: readonly QueuePair[], loop: Loop): void {
    const next = this.#open(spec);
    for (const pair of pairs) takeWaiting(pair);
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

/** Drains a port into the guest, as far as the guest has buffers. */
function takeWaiting(pair: QueuePair): void {
  for (let left = MAX_WAITING; left > 0; ) {
    const moved = pair.fillRx();
    if (moved === 0) return;
    left -= moved;
  }
}

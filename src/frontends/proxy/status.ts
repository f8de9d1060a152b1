/** What `bpfhv status`, `-S` and the verbose dumps say of a backend. */
import { featureNames } from "../../abi/index.ts";
import type { QueuePair } from "../../engine/pair.ts";
import { BATCHES, INTERRUPTS, KICKS, PACKETS } from "../../memory/counters.ts";
import type { HandshakeStep } from "../../nic/state.ts";
import { type NicStatus, queueStatus } from "../../nic/status.ts";
import type { BackendConnection } from "./connection.ts";
import { MTU } from "./protocol.ts";

export function proxyStatus(
  frontend: BackendConnection,
  device: string,
  pair: QueuePair,
  loop: Readonly<Record<string, number>>,
): NicStatus {
  const { backend } = frontend;
  return {
    device,
    port: pair.port.name,
    mac: "the VMM's",
    mtu: MTU,
    link: frontend.connected && pair.port.linkUp ? "up" : "down",
    step: stepOf(frontend),
    firstRefusal: backend.firstRefusal,
    lastRefusal: backend.lastRefusal,
    generation: 1,
    programs: pair.rx.registered || pair.tx.registered ? "unverified" : "-",
    features: featureNames(backend.selectedFeatures),
    upgrade: null,
    resets: 0,
    refused: { requests: backend.counters.refused },
    queues: [queueStatus(pair.rx), queueStatus(pair.tx)],
    loop: { ...loop },
    transport: { ...frontend.counters, ...backend.counters },
  };
}

function stepOf(frontend: BackendConnection): HandshakeStep {
  const { queues, parameters, running } = frontend.backend;
  if (!frontend.connected) return "no guest";
  if (running) return "enabled";
  if (queues.every(({ queue }) => queue.registered)) return "contexts registered";
  return parameters === null ? "guest attached" : "driver found the device";
}

/** The lines of the original's queue dump, of the queues that run. */
export function dumpQueues({ rx, tx }: QueuePair): string {
  return [...rx.dump(), ...tx.dump()].map((line) => `${line}\n`).join("");
}

/** Rates between two looks at the counters: what `-S` prints. */
export class RateReport {
  readonly #pair: QueuePair;
  #before: Float64Array[];
  #at = performance.now();

  constructor(pair: QueuePair) {
    this.#pair = pair;
    this.#before = this.#look();
  }

  #look(): Float64Array[] {
    return [this.#pair.rx.counters.slice(), this.#pair.tx.counters.slice()];
  }

  /**
   * Since the last report: thousands of packets, kicks and interrupts a second; packets per batch.
   */
  next(): string {
    const now = performance.now();
    const after = this.#look();
    const seconds = Math.max(now - this.#at, 1) / 1000;
    const lines = after.map((counters, i) => {
      const grown = (slot: number): number => counters[slot] - this.#before[i][slot];
      const rate = (slot: number): string => cell(grown(slot) / seconds / 1000);
      const perBatch = cell(grown(PACKETS) / Math.max(grown(BATCHES), 1));
      return `  ${i === 0 ? "RX0" : "TX0"}${rate(PACKETS)}${rate(KICKS)}${rate(INTERRUPTS)}${perBatch}\n`;
    });
    this.#before = after;
    this.#at = now;
    return `queue   kpackets/s    kkicks/s     kirqs/s     pkts/batch\n${lines.join("")}`;
  }
}

function cell(value: number): string {
  return value.toFixed(3).padStart(12);
}

/** What `bpfhv status` shows of a NIC, as plain data. */
import { ABILITY, featureNames } from "../abi/index.ts";
import type { HostRing } from "../devices/format.ts";
import { countersToJson, type QueueCounterName, type QueueCounters } from "../memory/counters.ts";
import { formatMac } from "./config.ts";
import type { HandshakeStep, Nic } from "./nic.ts";

export interface QueueStatus {
  readonly queue: string;
  readonly counters: Record<QueueCounterName, number>;
  /** The guest lied about its indices; the queue stands until the driver resets it. */
  readonly broken: boolean;
  /** Descriptors that the guest has published and the host not used yet; null: the queue does not run. */
  readonly fill: number | null;
  /** Descriptors in all. */
  readonly bufs: number;
}

/** @param ring null where the queue does not run */
export function queueStatus(
  queue: string,
  counters: QueueCounters,
  ring: HostRing | null,
  bufs: number,
): QueueStatus {
  return {
    ...{ queue, counters: countersToJson(counters), broken: ring?.broken ?? false },
    ...{ fill: ring?.fill() ?? null, bufs },
  };
}

export interface NicStatus {
  readonly device: string;
  readonly port: string;
  readonly mac: string;
  readonly mtu: number;
  readonly link: "up" | "down";
  readonly step: HandshakeStep;
  /** Of the guest that is attached, or was. */
  readonly firstRefusal: string;
  readonly lastRefusal: string;
  readonly generation: number;
  /** Which programs the guest's driver took: proved by its kernel, or not. "-": none yet. */
  readonly programs: "verified" | "unverified" | "-";
  readonly features: readonly string[];
  readonly resets: number;
  readonly refused: Readonly<Record<string, number>>;
  readonly queues: readonly QueueStatus[];
  readonly loop: Readonly<Record<string, number>>;
  readonly transport: Readonly<Record<string, number>>;
}

export function nicStatus(
  nic: Nic,
  loop: Readonly<Record<string, number>>,
  transport: Readonly<Record<string, number>>,
): NicStatus {
  const queues = nic.pairs.flatMap((pair, i) => [
    queueStatus(`rx${i}`, pair.rxCounters, pair.rx, nic.config.rxBufs),
    queueStatus(`tx${i}`, pair.txCounters, pair.tx, nic.config.txBufs),
  ]);
  return {
    device: nic.config.device.name,
    port: nic.pairs[0].port.name,
    mac: formatMac(nic.config.mac),
    mtu: nic.mtu,
    link: nic.linkUp ? "up" : "down",
    step: nic.step,
    firstRefusal: nic.firstRefusal,
    lastRefusal: nic.lastRefusal,
    generation: nic.state.generation,
    programs: programsOf(nic),
    features: featureNames(nic.state.selectedFeatures),
    resets: nic.resets,
    refused: { ...nic.refused },
    queues,
    loop: { ...loop },
    transport: { ...transport },
  };
}

/** What the guest's kernel said of the programs that its driver runs. */
export function programsOf(nic: Nic): NicStatus["programs"] {
  if (nic.state.queues.every((queue) => queue.context === null)) return "-";
  return nic.state.abilities & ABILITY.HELPERFREE ? "verified" : "unverified";
}

/** What `bpfhv status` shows of a NIC, as plain data. */
import { ABILITY, featureNames } from "../abi/index.ts";
import type { Queue } from "../engine/queue.ts";
import { countersToJson, type QueueCounterName } from "../memory/counters.ts";
import { formatMac } from "./config.ts";
import type { Nic } from "./nic.ts";
import type { HandshakeStep } from "./state.ts";
import type { UpgradeReport } from "./upgrade.ts";

export interface QueueStatus {
  readonly queue: string;
  readonly counters: Record<QueueCounterName, number>;
  /** The guest's indices were invalid: the queue is not served until the driver resets it. */
  readonly broken: boolean;
  /** Descriptors published and not yet used by the host; null while the queue is not served. */
  readonly fill: number | null;
  /** Descriptors of the ring. */
  readonly bufs: number;
  /** A replaced ring is still being served, besides the current one. */
  readonly retiring: boolean;
}

export function queueStatus({ name, counters, broken, fill, bufs, retiring }: Queue): QueueStatus {
  return {
    ...{ queue: name, counters: countersToJson(counters), broken, fill, bufs },
    retiring: retiring !== null,
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
  /** Whether the guest's kernel verified the programs that its driver runs. "-": none yet. */
  readonly programs: "verified" | "unverified" | "-";
  readonly features: readonly string[];
  /** The latest replacement of the set; null: there was none. */
  readonly upgrade: UpgradeReport | null;
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
  const queues = nic.pairs.flatMap(({ rx, tx }) => [queueStatus(rx), queueStatus(tx)]);
  return {
    device: nic.running.format.name,
    port: nic.pairs[0].port.name,
    mac: formatMac(nic.config.mac),
    mtu: nic.link.mtu,
    link: nic.link.up ? "up" : "down",
    step: nic.step,
    firstRefusal: nic.refusals.first,
    lastRefusal: nic.refusals.last,
    generation: nic.running.id,
    programs: programsOf(nic),
    features: featureNames(nic.state.selectedFeatures),
    upgrade: nic.upgrade.report,
    resets: nic.resets,
    refused: { ...nic.refusals.counts },
    queues,
    loop: { ...loop },
    transport: { ...transport },
  };
}

/** @returns whether the guest's kernel verified the programs that its driver runs */
export function programsOf(nic: Nic): NicStatus["programs"] {
  if (nic.queues.every(({ registered }) => !registered)) return "-";
  return nic.state.abilities & ABILITY.HELPERFREE ? "verified" : "unverified";
}

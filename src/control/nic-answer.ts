/**
 * What a running NIC says of itself, checked: its server may be another version, or no server of
 * ours at all.
 */
import { QUEUE_COUNTERS, type QueueCounterName } from "../memory/counters.ts";
import type { NicStatus, QueueStatus } from "../nic/status.ts";

export interface ServedNic extends NicStatus {
  readonly pid: number;
  readonly socket: string;
  /** Of bpfhv. */
  readonly version: string;
  readonly uptimeSeconds: number;
  /** What the host's verifier said of the programs, before they were offered. */
  readonly proof: string;
  /** msix or msi. */
  readonly interrupts: string;
}

type Fields = Readonly<Record<string, unknown>>;

/** Queues of eight pairs. */
const MAX_QUEUES = 16;
const MAX_FEATURES = 64;
const TEXTS = ["device", "port", "mac", "link", "step", "programs", "lastRefusal", "socket"];
const NUMBERS = ["pid", "generation"];
/** Fields that servers of before have not, and what is shown instead. */
const LATER: Fields = {
  ...{ version: "-", uptimeSeconds: 0, proof: "-", mtu: 0, interrupts: "msix", firstRefusal: "" },
};

/** The answer as a NIC's status; fields that are not known stay. @throws Error if it is none */
export function readNic(answer: unknown): ServedNic {
  const nic = fieldsOf(answer, "an answer");
  for (const name of TEXTS) expect(typeof nic[name] === "string", name);
  for (const name of NUMBERS) expect(isNumber(nic[name]), name);
  for (const [name, value] of Object.entries(LATER)) {
    expect(nic[name] === undefined || typeof nic[name] === typeof value, name);
  }
  const { features, queues } = nic;
  expect(isShortList(features, MAX_FEATURES), "features");
  expect(
    (features as unknown[]).every((each) => typeof each === "string"),
    "features",
  );
  expect(isShortList(queues, MAX_QUEUES), "queues");
  const checked = { ...LATER, ...nic, queues: (queues as unknown[]).map(readQueue) };
  return checked as unknown as ServedNic;
}

function readQueue(value: unknown): QueueStatus {
  const queue = fieldsOf(value, "queues");
  const counters = fieldsOf(queue.counters, "counters");
  expect(typeof queue.queue === "string" && queue.queue.length <= 16, "queue");
  expect(typeof queue.broken === "boolean", "broken");
  expect(queue.fill === null || isNumber(queue.fill), "fill");
  expect(isNumber(queue.bufs), "bufs");
  const known = QUEUE_COUNTERS.map(([name]): [QueueCounterName, unknown] => [
    name,
    counters[name] ?? 0,
  ]);
  for (const [name, count] of known) expect(isNumber(count), name);
  return { ...queue, counters: Object.fromEntries(known) } as unknown as QueueStatus;
}

function fieldsOf(value: unknown, what: string): Fields {
  expect(typeof value === "object" && value !== null && !Array.isArray(value), what);
  return value as Fields;
}

function isNumber(value: unknown): boolean {
  return typeof value === "number" && value >= 0;
}

function isShortList(value: unknown, longest: number): boolean {
  return Array.isArray(value) && value.length <= longest;
}

function expect(holds: boolean, what: string): void {
  if (!holds) throw new Error(`its answer is not a NIC's status (${what})`);
}

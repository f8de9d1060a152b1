import { type RecordReader, readRecord } from "./record.ts";

/**
 * Counters of one queue. Declared once: the list makes the slots, the JSON and the text. They live
 * in a Float64Array (exact to 2^53): plain memory of the worker's thread. Other threads get copies
 * in the answer to `status`.
 */
export const QUEUE_COUNTERS = [
  ["packets", "packets moved"],
  ["bytes", "bytes moved"],
  ["batches", "turns that moved at least one packet"],
  ["kicks", "doorbells rung by the guest"],
  ["interrupts", "interrupts sent to the guest"],
  ["dropBadAddress", "descriptors whose memory is not the guest's"],
  ["dropBadLength", "descriptors with an invalid length"],
  ["dropBadChain", "packets of more buffers than a packet has"],
  ["dropBadChecksum", "packets whose checksum was not to be left to the host, or lies outside"],
  ["dropBadSegmentation", "packets with a segmentation that was not negotiated, or is impossible"],
  ["dropSpoofed", "spoofed packets: their address or VLAN is not, or might not be, the guest's"],
  ["dropPort", "packets that the port refused permanently"],
  ["dropTooLong", "received packets longer than the guest's buffers"],
  ["dropStopped", "received packets that the guest's table gave to a queue that is stopped"],
  ["ringErrors", "times the guest's indices were invalid and the queue was stopped"],
  ["filtered", "received packets for addresses that the guest does not listen to"],
  ["noBuffers", "times a packet waited because the guest had published no buffer"],
  ["software", "received packets whose checksum or segmentation the host did for an older set"],
  ["limited", "times packets waited because of a rate limit"],
] as const;

export type QueueCounterName = (typeof QUEUE_COUNTERS)[number][0];

const INDEX = Object.fromEntries(QUEUE_COUNTERS.map(([name], i) => [name, i])) as Record<
  QueueCounterName,
  number
>;

export const PACKETS = INDEX.packets;
export const BYTES = INDEX.bytes;
export const BATCHES = INDEX.batches;
export const KICKS = INDEX.kicks;
export const INTERRUPTS = INDEX.interrupts;
export const DROP_BAD_ADDRESS = INDEX.dropBadAddress;
export const DROP_BAD_LENGTH = INDEX.dropBadLength;
export const DROP_BAD_CHAIN = INDEX.dropBadChain;
export const DROP_BAD_CHECKSUM = INDEX.dropBadChecksum;
export const DROP_BAD_SEGMENTATION = INDEX.dropBadSegmentation;
export const DROP_SPOOFED = INDEX.dropSpoofed;
export const DROP_TOO_LONG = INDEX.dropTooLong;
export const DROP_PORT = INDEX.dropPort;
export const DROP_STOPPED = INDEX.dropStopped;
export const RING_ERRORS = INDEX.ringErrors;
export const FILTERED = INDEX.filtered;
export const NO_BUFFERS = INDEX.noBuffers;
export const SOFTWARE = INDEX.software;
export const LIMITED = INDEX.limited;

/** The counters that are drops. */
export const DROP_COUNTERS: readonly QueueCounterName[] = QUEUE_COUNTERS.map(
  ([name]) => name,
).filter((name) => name.startsWith("drop"));

export type QueueCounters = Float64Array;

export function newQueueCounters(): QueueCounters {
  return new Float64Array(QUEUE_COUNTERS.length);
}

export function countersToJson(slots: QueueCounters): Record<QueueCounterName, number> {
  const entries = QUEUE_COUNTERS.map(([name], i) => [name, slots[i]]);
  return Object.fromEntries(entries) as Record<QueueCounterName, number>;
}

/** The state of a queue's counters, as a record. */
export interface CountersRecord {
  readonly version: 1;
  readonly counters: Readonly<Record<string, number>>;
}

export function saveCounters(slots: QueueCounters): CountersRecord {
  return { version: 1, counters: countersToJson(slots) };
}

/**
 * Checks a record. A counter that it lacks is 0: later releases count more.
 * @returns the function that restores it, which does not fail
 * @throws RecordError
 */
export function prepareCounters(name: string, value: unknown, slots: QueueCounters): () => void {
  const names = QUEUE_COUNTERS.map(([counter]) => counter);
  const read = (record: RecordReader): number[] => record.counts("counters", names);
  const counts = readRecord(name, value, 1, read);
  return () => slots.set(counts);
}

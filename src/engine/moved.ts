/** What a poll of a ring did, from and into the counters of its queue. */
import {
  BATCHES,
  BYTES,
  DROP_BAD_ADDRESS,
  DROP_BAD_CHAIN,
  DROP_BAD_CHECKSUM,
  DROP_BAD_LENGTH,
  DROP_BAD_SEGMENTATION,
  PACKETS,
  type QueueCounters,
} from "../memory/counters.ts";
import type { Batch } from "../memory/index.ts";

/** Counts the first `count` packets of a batch as moved. */
export function countMoved(counters: QueueCounters, { length }: Batch, count: number): void {
  if (count === 0) return;
  let bytes = 0;
  for (let p = 0; p < count; p++) bytes += length[p];
  counters[PACKETS] += count;
  counters[BYTES] += bytes;
  counters[BATCHES]++;
}

/** Descriptors that were skipped as invalid, in total. */
export function brokenDescriptors(counters: QueueCounters): number {
  return (
    counters[DROP_BAD_ADDRESS] +
    counters[DROP_BAD_LENGTH] +
    counters[DROP_BAD_CHAIN] +
    counters[DROP_BAD_CHECKSUM] +
    counters[DROP_BAD_SEGMENTATION]
  );
}

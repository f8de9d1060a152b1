/** `bpfhv/nic`: what a ring format is written with. docs/extending.md is the contract. */
export * from "../abi/index.ts";
export {
  DROP_BAD_ADDRESS,
  DROP_BAD_CHAIN,
  DROP_BAD_CHECKSUM,
  DROP_BAD_LENGTH,
  DROP_BAD_SEGMENTATION,
  type QueueCounters,
  RING_ERRORS,
} from "../memory/counters.ts";
export { type Batch, type ContextWords, MAX_GSO_PACKET, NEEDS_CSUM } from "../memory/index.ts";
export { metadataProblem, transmitOffloads } from "../memory/offloads.ts";
export { type GuestBuffers, MAX_PACKET, MIN_PACKET } from "./buffers.ts";
export { defineNic, type NicDefinition, type RingConfig } from "./define.ts";
export type {
  HostRing,
  ProgramOptions,
  RingFormat,
  RxPath,
  RxRing,
  TxPath,
  TxRing,
} from "./format.ts";
export { IndexControl, type IndexOptions, type IndexWords, wordOf } from "./index-control.ts";
export { joinRx, joinTx } from "./join.ts";
export { type SlotLayout, SlotPath } from "./slot-path.ts";

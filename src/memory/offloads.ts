/**
 * Offloads as features: the words that select them, what negotiated features allow in packets of
 * each direction, and the check of a packet's metadata. Metadata of a guest reaches the host's
 * kernel, so none passes that was not negotiated or that points outside of its packet.
 */
import { FEATURES } from "../abi/index.ts";
import { DROP_BAD_CHECKSUM, DROP_BAD_LENGTH, DROP_BAD_SEGMENTATION } from "./counters.ts";
import {
  allowsMetadata,
  type Batch,
  ETHERNET_HEADER,
  GSO_NONE,
  MAX_GSO_PACKET,
  NEEDS_CSUM,
  OFFLOAD_CSUM,
  OFFLOAD_ECN,
  OFFLOAD_SEGMENTATION,
  OFFLOAD_TSO4,
  OFFLOAD_TSO6,
  OFFLOAD_UFO,
  OFFLOAD_USO,
  VLAN_TAGS,
} from "./index.ts";

/** Segments of one packet: a guest must not have the host's kernel make 65535 of one. */
const MAX_SEGMENTS = 2048;

/** Words of the command lines for groups of feature bits; checksums bring scatter-gather along. */
export const OFFLOAD_WORDS = {
  txcsum: FEATURES.SG | FEATURES.TX_CSUM,
  rxcsum: FEATURES.SG | FEATURES.RX_CSUM,
  tso: FEATURES.TSO_V4 | FEATURES.TSO_V6 | FEATURES.UFO,
  lro: FEATURES.TCP_V4_LRO | FEATURES.TCP_V6_LRO | FEATURES.UDP_LRO,
} as const;
export type OffloadWord = keyof typeof OFFLOAD_WORDS;

export function isOffloadWord(word: string): word is OffloadWord {
  return Object.hasOwn(OFFLOAD_WORDS, word);
}

/** @returns the feature bits that the words stand for; a device offers those that it has */
export function offloadFeatures(words: Iterable<OffloadWord>): number {
  let features = 0;
  for (const word of words) features |= OFFLOAD_WORDS[word];
  return features;
}

function offloads(features: number, csum: number, v4: number, v6: number, udp: number): number {
  // Segments need checksums of their own: without that one nothing else works.
  if (!(features & csum)) return 0;
  let bits = OFFLOAD_CSUM;
  if (features & v4) bits |= OFFLOAD_TSO4 | OFFLOAD_ECN;
  if (features & v6) bits |= OFFLOAD_TSO6 | OFFLOAD_ECN;
  if (features & udp) bits |= OFFLOAD_UFO | OFFLOAD_USO;
  return bits;
}

/** @returns OFFLOAD_* that the guest may leave to the host in packets that it sends */
export function transmitOffloads(features: number): number {
  const { TX_CSUM, TSO_V4, TSO_V6, UFO } = FEATURES;
  return offloads(features, TX_CSUM, TSO_V4, TSO_V6, UFO);
}

/** @returns OFFLOAD_* that the host may leave to the guest in packets that it receives */
export function receiveOffloads(features: number): number {
  const { RX_CSUM, TCP_V4_LRO, TCP_V6_LRO, UDP_LRO } = FEATURES;
  return offloads(features, RX_CSUM, TCP_V4_LRO, TCP_V6_LRO, UDP_LRO);
}

/**
 * @param mtu counts neither the Ethernet header nor VLAN tags
 * @returns bytes of the longest packet that a guest must have buffers for
 */
export function longestReceived(features: number, mtu: number): number {
  const large = receiveOffloads(features) & OFFLOAD_SEGMENTATION;
  return large ? MAX_GSO_PACKET : mtu + ETHERNET_HEADER + VLAN_TAGS;
}

/**
 * Checks the metadata of packet p against the packet and against what was negotiated.
 * @param allowed OFFLOAD_* bits
 * @returns -1 if it is valid and allowed; otherwise the counter of the drop
 */
export function metadataProblem(batch: Batch, p: number, allowed: number): number {
  const flags = batch.flags[p];
  const gsoType = batch.gsoType[p];
  if (flags === 0 && gsoType === GSO_NONE) return -1;
  const length = batch.length[p];
  if (flags & NEEDS_CSUM) {
    const start = batch.csumStart[p];
    const inside = start >= ETHERNET_HEADER && start + batch.csumOffset[p] + 2 <= length;
    if (!inside || !(allowed & OFFLOAD_CSUM)) return DROP_BAD_CHECKSUM;
  }
  if (gsoType === GSO_NONE) return -1;
  if (!(flags & NEEDS_CSUM) || !allowsMetadata(allowed, flags, gsoType)) {
    return DROP_BAD_SEGMENTATION;
  }
  const gsoSize = batch.gsoSize[p];
  const sane = gsoSize > 0 && gsoSize < 0xffff && batch.hdrLen[p] <= length;
  if (!sane || length > gsoSize * MAX_SEGMENTS) return DROP_BAD_SEGMENTATION;
  return length <= MAX_GSO_PACKET ? -1 : DROP_BAD_LENGTH;
}

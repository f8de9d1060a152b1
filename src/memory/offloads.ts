/**
 * What was negotiated, in terms of packets: which metadata a guest may send, which it takes, and whether
 * a packet's own is possible at all. A guest's metadata ends up in the host kernel's hands, so nothing
 * passes that was not negotiated or that points outside of its packet.
 */
import { FEATURES } from "../abi/index.ts";
import { DROP_BAD_CHECKSUM, DROP_BAD_LENGTH, DROP_BAD_SEGMENTATION } from "./counters.ts";
import {
  allowsMetadata,
  type Batch,
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
} from "./index.ts";

/** Segments that one packet may be cut into: a guest must not have the host's kernel make 65535 of one. */
const MAX_SEGMENTS = 2048;
const ETHERNET_HEADER = 14;
/** Two VLAN tags (QinQ) at full size: an MTU counts neither them nor the header. */
const TAGS = 8;

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

/** @returns bytes of the longest packet that a guest must have buffers for; `mtu` is without headers */
export function longestReceived(features: number, mtu: number): number {
  const large = receiveOffloads(features) & OFFLOAD_SEGMENTATION;
  return large ? MAX_GSO_PACKET : mtu + ETHERNET_HEADER + TAGS;
}

/**
 * Is the metadata of packet p possible, and allowed?
 * @returns -1 where it is; otherwise the counter of the drop
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

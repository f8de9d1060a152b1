/**
 * Offload metadata of a packet, as virtio-net defines it (VIRTIO 1.1, section 5.1.6.2): a checksum
 * that is still to be filled in, and how a large packet is to be segmented. The fields are those of
 * `virtio_net_hdr` (`VNET_HDR` in src/abi), which a TAP puts before every frame and which a
 * HELPERFREE context has at offset 36.
 */
import {
  TUN_F_CSUM,
  TUN_F_TSO_ECN,
  TUN_F_TSO4,
  TUN_F_TSO6,
  TUN_F_UFO,
  TUN_F_USO,
} from "../os/tun-flags.ts";

/** The metadata of one packet, in the fields of virtio_net_hdr. */
export interface PacketMetadata {
  readonly flags: number;
  readonly gsoType: number;
  /** Bytes of all headers before the payload: a hint. */
  readonly hdrLen: number;
  /** Bytes of payload in each segment. */
  readonly gsoSize: number;
  readonly csumStart: number;
  /** From `csumStart`. */
  readonly csumOffset: number;
}

/** `flags`: the checksum from `csumStart` on is to be stored at `csumStart + csumOffset`. */
export const NEEDS_CSUM = 1;

export const GSO_NONE = 0;
export const GSO_TCP_V4 = 1;
/** UDP in IP fragments ("UFO"). */
export const GSO_UDP = 3;
export const GSO_TCP_V6 = 4;
/** UDP in datagrams of `gsoSize` ("USO"); host kernels know it from Linux 6.2. */
export const GSO_UDP_L4 = 5;
/** Added to a TCP type: the flow uses explicit congestion notification. */
export const GSO_ECN = 0x80;

/* Offloads that one side may leave to the other, with the values that TUNSETOFFLOAD takes */
export const OFFLOAD_CSUM = TUN_F_CSUM;
export const OFFLOAD_TSO4 = TUN_F_TSO4;
export const OFFLOAD_TSO6 = TUN_F_TSO6;
export const OFFLOAD_ECN = TUN_F_TSO_ECN;
export const OFFLOAD_UFO = TUN_F_UFO;
export const OFFLOAD_USO = TUN_F_USO;

/** Any offload that makes packets longer than the MTU. */
export const OFFLOAD_SEGMENTATION = OFFLOAD_TSO4 | OFFLOAD_TSO6 | OFFLOAD_UFO | OFFLOAD_USO;

/** Bytes of an Ethernet header. */
export const ETHERNET_HEADER = 14;
/** Bytes of two VLAN tags (QinQ). */
export const VLAN_TAGS = 8;

/** Longest packet with segmentation: 65535 bytes of IP after the Ethernet header and two tags. */
export const MAX_GSO_PACKET = 65535 + ETHERNET_HEADER + VLAN_TAGS;

const NEEDED: readonly number[] = [0, OFFLOAD_TSO4, -1, OFFLOAD_UFO, OFFLOAD_TSO6, OFFLOAD_USO];

/** @returns the offload that a gso_type needs; -1 if the type is unknown */
export function offloadOfGsoType(gsoType: number): number {
  const base = gsoType & ~GSO_ECN;
  if (gsoType & GSO_ECN && base !== GSO_TCP_V4 && base !== GSO_TCP_V6) return -1;
  return base < NEEDED.length ? NEEDED[base] : -1;
}

/** May a side that granted `offloads` be given such a packet? */
export function allowsMetadata(offloads: number, flags: number, gsoType: number): boolean {
  if (flags & NEEDS_CSUM && !(offloads & OFFLOAD_CSUM)) return false;
  if (gsoType === GSO_NONE) return true;
  const needed = offloadOfGsoType(gsoType);
  return needed > 0 && (offloads & needed) === needed;
}

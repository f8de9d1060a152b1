/**
 * What virtio-net says of a packet beside its bytes: a checksum that is still to be filled in, and
 * how a large packet is to be cut (VIRTIO 1.1, section 5.1.6.2). The same numbers stand in
 * `virtio_net_hdr`, in the header of a TAP, and in a HELPERFREE context at offset 36.
 */

/** `flags`: the checksum from `csumStart` on is to be stored at `csumStart + csumOffset`. */
export const NEEDS_CSUM = 1;
/** `flags`: checksums were verified. */
export const DATA_VALID = 2;

export const GSO_NONE = 0;
export const GSO_TCP_V4 = 1;
/** UDP in IP fragments ("UFO"). */
export const GSO_UDP = 3;
export const GSO_TCP_V6 = 4;
/** UDP in datagrams of `gsoSize` ("USO"); host kernels know it from Linux 6.2. */
export const GSO_UDP_L4 = 5;
/** Added to a TCP type: the flow uses explicit congestion notification. */
export const GSO_ECN = 0x80;

/** Offloads that one side may leave to the other. The values are those of TUNSETOFFLOAD. */
export const OFFLOAD_CSUM = 0x01;
export const OFFLOAD_TSO4 = 0x02;
export const OFFLOAD_TSO6 = 0x04;
export const OFFLOAD_ECN = 0x08;
export const OFFLOAD_UFO = 0x10;
export const OFFLOAD_USO = 0x60;

/** Any offload that makes packets longer than the MTU. */
export const OFFLOAD_SEGMENTATION = OFFLOAD_TSO4 | OFFLOAD_TSO6 | OFFLOAD_UFO | OFFLOAD_USO;

/**
 * Longest packet with segmentation: IP's 65535 bytes after an Ethernet header with two VLAN tags.
 */
export const MAX_GSO_PACKET = 65535 + 14 + 8;

const NEEDED: readonly number[] = [0, OFFLOAD_TSO4, -1, OFFLOAD_UFO, OFFLOAD_TSO6, OFFLOAD_USO];

/** @returns the offload that a gso_type needs; -1 for a type that there is not */
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

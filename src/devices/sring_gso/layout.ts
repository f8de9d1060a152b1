/**
 * sring_gso: the control words of sring, with descriptors that carry offload metadata; a packet has
 * one or more. Byte for byte as in the original.
 */
import { METADATA, struct, u16, u64 } from "../../abi/index.ts";

/** `flags`: the last descriptor of its packet; the metadata is in that one only. */
export const DESC_EOP = 1;
/** `flags`: virtio-net's NEEDS_CSUM. */
export const DESC_NEEDS_CSUM = 2;
/** `flags`, received: `hdr_len` and `hash_high` are the flow's hash. */
export const DESC_HASH = 4;
/** `flags`, received: the hash covers the ports, too. */
export const DESC_HASH_PORTS = 8;

const common = {
  cookie: u64(0),
  paddr: u64(8),
  /** 16 bits: the programs refuse a buffer of 65536 bytes. */
  len: u16(16),
  flags: u16(18),
  csum_start: u16(20),
  csum_offset: u16(22),
  gso_type: u16(28),
  /** Reserved in the original. */
  hash_high: u16(30),
};

/** A descriptor that the guest sends. */
export const GSO_TX_DESC = struct("sring_gso_tx_desc", 32, {
  ...common,
  hdr_len: u16(24),
  gso_size: u16(26),
});

/** A descriptor that the guest receives: two fields are swapped, as in the original. */
export const GSO_RX_DESC = struct("sring_gso_rx_desc", 32, {
  ...common,
  gso_size: u16(24),
  hdr_len: u16(26),
});

/** Offset of the packet's virtio_net_hdr in the context. */
export const HEADER = METADATA.flags.offset;

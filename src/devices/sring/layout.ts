/**
 * sring: one descriptor per packet, no offloads. The private area of its contexts, byte for byte as
 * in the original: its program objects and backends interoperate with ours.
 *
 * Groups of control words are 128 bytes apart: words written by the guest and words written by the
 * host never share a cache line, although the area itself is not aligned (it starts at 48 modulo
 * 64, which is part of the ABI).
 *
 *     clear <= cons <= prod <= clear + n        (all modulo 2^32; slot = index AND (n - 1))
 *
 *     clear..cons  completed by the host, not yet collected by the guest
 *     cons..prod   published by the guest, not yet used by the host
 */
import { struct, u32, u64 } from "../../abi/index.ts";

/** Offsets from the start of the private area. */
export const SRING = struct("sring_private", 512, {
  /** Guest: next slot to publish. */
  prod: u32(0),
  /** RX, guest: 1 if interrupts are enabled. TX, guest: index whose completion interrupts. */
  intr: u32(4),
  /** Guest: target of the atomic that serves as full barrier in programs without helpers. */
  barrier: u32(8),
  /** Host (guest in reclaim): next slot the host will use. */
  cons: u32(128),
  /** Host: 1 if kicks are enabled. */
  kick_enabled: u32(132),
  /** Host, at registration: n - 1. Never read back by the host: the guest could have changed it. */
  qmask: u32(256),
  /** Guest: next slot to reclaim. */
  clear: u32(384),
});

/** One descriptor. In RX the host overwrites `len` with the received length. */
export const SRING_DESC = struct("sring_desc", 24, {
  cookie: u64(0),
  paddr: u64(8),
  len: u32(16),
  pad: u32(20),
});

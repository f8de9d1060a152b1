/**
 * sring_gso's guest programs, compiled (`docs/compiler.md`). Indices, kicks, interrupts and memory
 * order are sring's (`../sring/guest-ring.ts`); here a packet is several descriptors, and its
 * metadata is in the last of them.
 *
 * The metadata is a virtio_net_hdr in the context, at the same offset in both forms: HELPERFREE
 * drivers write and read it there; version 1 drivers reserve those bytes, and helpers fill and read
 * them.
 */
import {
  BUF,
  BUFS_OFFSET,
  CONTEXT,
  HELPERS,
  MAX_BUFS,
  PRIVATE_OFFSET,
  type ProgramForm,
  VNET_HDR,
} from "../../abi/index.ts";
import {
  after,
  type Context,
  call,
  elements,
  u8,
  u16,
  u32,
  type View,
  view,
} from "../../compiler/language.ts";
import { interruptOnFirstReceived, interruptOnFirstSent, publish } from "../sring/guest-ring.ts";
import { SRING } from "../sring/layout.ts";
import {
  DESC_EOP,
  DESC_HASH,
  DESC_HASH_PORTS,
  DESC_NEEDS_CSUM,
  GSO_RX_DESC,
  GSO_TX_DESC,
  HEADER,
} from "./layout.ts";

export { rxi, txi } from "../sring/guest-ring.ts";

/** Buffers of the queue, a power of two. */
declare const bufs: number;
declare const form: ProgramForm;

const RING = PRIVATE_OFFSET + SRING.size;

function txSlot(context: Context, index: u32): View<typeof GSO_TX_DESC> {
  return elements(GSO_TX_DESC, context, RING)[index & (bufs - 1)];
}

function rxSlot(context: Context, index: u32): View<typeof GSO_RX_DESC> {
  return elements(GSO_RX_DESC, context, RING)[index & (bufs - 1)];
}

/** Fills `count` slots from prod on. Returns the OR of all lengths: it shows one above 16 bits. */
function fill(context: Context, prod: u32, count: u32): u32 {
  const buffers = elements(BUF, context, BUFS_OFFSET);
  let lengths = 0;
  for (let i = 0; i < count; i++) {
    const slot = txSlot(context, prod + i);
    const buffer = buffers[i];
    const length = buffer.len;
    slot.cookie = buffer.cookie;
    slot.paddr = buffer.paddr;
    slot.len = u16(length);
    slot.flags = 0;
    lengths |= length;
  }
  return lengths;
}

/** Writes the packet's metadata into its last slot. */
function putMetadata(context: Context, slot: View<typeof GSO_TX_DESC>): void {
  const header = view(VNET_HDR, context, HEADER);
  slot.csum_start = header.csum_start;
  slot.csum_offset = header.csum_offset;
  slot.hdr_len = header.hdr_len;
  slot.gso_size = header.gso_size;
  slot.gso_type = u16(header.gso_type);
  slot.flags = DESC_EOP | ((u16(header.flags) & 1) * DESC_NEEDS_CSUM);
}

export function txp(context: Context): number {
  const ring = view(SRING, context, PRIVATE_OFFSET);
  if (form === "v1") call(HELPERS.pkt_virtio_net_md_get, context, view(VNET_HDR, context, HEADER));
  const count = view(CONTEXT, context, 0).num_bufs;
  if (count === 0 || count > MAX_BUFS) return -1;
  const prod = ring.prod;
  if (fill(context, prod, count) > 0xffff) return -1;
  putMetadata(context, txSlot(context, prod + count - 1));
  return publish(context, count);
}

export function rxp(context: Context): number {
  const count = view(CONTEXT, context, 0).num_bufs;
  if (count > MAX_BUFS) return -1;
  const prod = view(SRING, context, PRIVATE_OFFSET).prod;
  if (fill(context, prod, count) > 0xffff) return -1;
  return publish(context, count);
}

/** Fills bufs[i] from the slot. Returns the slot's flags. */
function take(context: Context, slot: View<typeof GSO_RX_DESC>, i: u32): u16 {
  const buffer = elements(BUF, context, BUFS_OFFSET)[i];
  buffer.cookie = slot.cookie;
  buffer.paddr = slot.paddr;
  buffer.len = u32(slot.len);
  return slot.flags;
}

/**
 * Reclaims the slots of one packet, from `clear` on, into bufs[]: up to and including the one with
 * EOP, up to `limit`, or 64. Returns their number.
 */
function takePacket(context: Context, limit: u32, clear: u32): u32 {
  const ring = view(SRING, context, PRIVATE_OFFSET);
  let count: u32 = 0;
  for (let i = 0; i < MAX_BUFS; i++) {
    const flags = take(context, rxSlot(context, clear + i), i);
    count = i + 1;
    if ((flags & DESC_EOP) !== 0) break;
    if (clear + count === limit) break;
  }
  view(CONTEXT, context, 0).num_bufs = count;
  ring.clear = clear + count;
  return count;
}

/** Reclaims one completed packet. Returns the number of its slots, 0 if none is complete. */
function takeCompleted(context: Context): u32 {
  const ring = view(SRING, context, PRIVATE_OFFSET);
  const cons = ring.cons;
  const clear = ring.clear;
  view(CONTEXT, context, 0).oflags = 0;
  if ((clear ^ cons) === 0) return 0;
  return takePacket(context, cons, after(clear, cons));
}

export function txc(context: Context): number {
  return takeCompleted(context) === 0 ? 0 : 1;
}

export function rxc(context: Context): number {
  const count = takeCompleted(context);
  if (count === 0) return 0;
  const slot = rxSlot(context, view(SRING, context, PRIVATE_OFFSET).clear - 1);
  const header = view(VNET_HDR, context, HEADER);
  header.csum_start = slot.csum_start;
  header.csum_offset = slot.csum_offset;
  header.hdr_len = slot.hdr_len;
  header.gso_size = slot.gso_size;
  header.gso_type = u8(slot.gso_type);
  const flags = slot.flags;
  let shown = (flags & DESC_NEEDS_CSUM) >>> 1;
  if (form === "helperfree") {
    // As METADATA_HASH and METADATA_HASH_PORTS.
    shown |= (flags & (DESC_HASH | DESC_HASH_PORTS)) << 4;
    view(CONTEXT, context, 0).hash_high = slot.hash_high;
  }
  header.flags = u8(shown);
  if (form === "v1") {
    // The driver handles a failure; the buffers are reclaimed in any case.
    const result = call(HELPERS.rx_pkt_alloc, context);
    if (result < 0) return result;
    call(HELPERS.pkt_virtio_net_md_set, context, header);
  }
  return 1;
}

/** Moves `cons` if `clear` passed it (old clear <= cons < new clear, modulo 2^32). */
function bringCons(ring: View<typeof SRING>, clear: u32, count: u32): void {
  if (ring.cons - clear < count) ring.cons = clear + count;
}

/** Reclaims a packet, completed or not, while the host is stopped. */
export function txr(context: Context): number {
  interruptOnFirstSent(context);
  const ring = view(SRING, context, PRIVATE_OFFSET);
  const prod = ring.prod;
  const clear = ring.clear;
  view(CONTEXT, context, 0).oflags = 0;
  if (prod === clear) return 0;
  bringCons(ring, clear, takePacket(context, prod, clear));
  return 1;
}

/** Reclaims up to 64 single buffers. */
export function rxr(context: Context): number {
  interruptOnFirstReceived(context);
  const ring = view(SRING, context, PRIVATE_OFFSET);
  const shared = view(CONTEXT, context, 0);
  const clear = ring.clear;
  let count = ring.prod - clear;
  shared.oflags = 0;
  if (count === 0) return 0;
  if (count > MAX_BUFS) count = MAX_BUFS;
  shared.num_bufs = count;
  ring.clear = clear + count;
  bringCons(ring, clear, count);
  for (let i = 0; i < count; i++) take(context, rxSlot(context, clear + i), i);
  return 1;
}

/**
 * vring_packed's guest programs, compiled (`docs/compiler.md`). The number of
 * buffers is a power of two and a constant, so an index wraps by a mask, and the bit
 * that falls out of it flips the wrap bit: no branch.
 *
 * Memory order. A slot is published by an exchange of its last word, id and flags
 * (HELPERFREE): release before, full barrier before the look at `device_event`. Arming is an
 * exchange for the same reason. Collecting loads that word, then the rest of the slot
 * through an address that depends on it. The v1 form uses plain stores and the helper
 * `smp_mb_full`, and needs a guest with x86 store order.
 */
import {
  BUF,
  BUFS_OFFSET,
  CONTEXT,
  HELPERS,
  MAX_BUFS,
  OFLAG_KICK_NEEDED,
  PRIVATE_OFFSET,
  type ProgramForm,
} from "../../abi/index.ts";
import {
  after,
  type Context,
  call,
  elements,
  exchange,
  u8,
  u16,
  u32,
  type View,
  view,
} from "../../compiler/language.ts";
import {
  DESC_AVAIL,
  DESC_USED,
  DESC_WRITE,
  DESCRIPTORS_OFFSET,
  EVENT_ALWAYS,
  EVENT_AT,
  EVENT_NEVER,
  PACKED,
  PACKED_DESC,
  PACKED_STATE,
} from "./layout.ts";

/**
 * Buffers of the queue, a power of two; its logarithm; offset of the state array in the context.
 */
declare const bufs: number;
declare const lapShift: number;
declare const states: number;
declare const form: ProgramForm;

const RING = PRIVATE_OFFSET + DESCRIPTORS_OFFSET;
const BOTH = DESC_AVAIL | DESC_USED;

function slotAt(context: Context, index: u32): View<typeof PACKED_DESC> {
  return elements(PACKED_DESC, context, RING)[index & (bufs - 1)];
}

function stateOf(context: Context, id: u32): View<typeof PACKED_STATE> {
  return elements(PACKED_STATE, context, states)[id & (bufs - 1)];
}

/** Publishes bufs[i]. False if its id is not free: the driver exceeds the ring. */
function publishSlot(context: Context, i: u32, writable: number): boolean {
  const ring = view(PACKED, context, PRIVATE_OFFSET);
  const index = u32(ring.next_avail_idx);
  const id = u32(ring.next_free_id) & (bufs - 1);
  const state = stateOf(context, id);
  if (state.busy !== 0) return false;
  const buffer = elements(BUF, context, BUFS_OFFSET)[i];
  const slot = slotAt(context, index);
  state.busy = 1;
  state.cookie = buffer.cookie;
  ring.next_free_id = state.next;
  slot.addr = buffer.paddr;
  slot.len = buffer.len;
  const flags = u32(ring.avail_used_flags);
  const carry = (index + 1) >>> lapShift;
  ring.next_avail_idx = u16((index + 1) & (bufs - 1));
  ring.avail_wrap = ring.avail_wrap ^ u8(carry);
  ring.avail_used_flags = u16(flags ^ (carry * BOTH));
  // Flags of the lap that the slot is in, from before the wrap.
  const word = id | ((flags | writable) << 16);
  if (form === "helperfree") exchange(slot.id_flags, word);
  else slot.id_flags = word;
  return true;
}

/**
 * After publishing `count` slots: is a kick wanted? (VIRTIO 1.1,
 * section 2.7.10, in 16-bit arithmetic.)
 */
function kickWanted(context: Context, count: u32): number {
  const ring = view(PACKED, context, PRIVATE_OFFSET);
  if (form === "v1") call(HELPERS.smp_mb_full);
  const event = ring.device_event;
  const mode = event >>> 16;
  if (mode === EVENT_ALWAYS) return OFLAG_KICK_NEEDED;
  if (mode !== EVENT_AT) return 0;
  // An event whose wrap bit is not ours lies one lap back.
  const lap = (((event >>> 15) ^ u32(ring.avail_wrap)) & 1) * bufs;
  const distance = u32(ring.next_avail_idx) - ((event & 0x7fff) - lap) - 1;
  return (distance & 0xffff) < count ? OFLAG_KICK_NEEDED : 0;
}

export function txp(context: Context): number {
  const shared = view(CONTEXT, context, 0);
  if (shared.num_bufs !== 1) return -1;
  if (!publishSlot(context, 0, 0)) return -1;
  shared.oflags = kickWanted(context, 1);
  return 0;
}

export function rxp(context: Context): number {
  const shared = view(CONTEXT, context, 0);
  const count = shared.num_bufs;
  if (count > MAX_BUFS) return -1;
  for (let i = 0; i < count; i++) {
    if (!publishSlot(context, i, DESC_WRITE)) return -1;
  }
  shared.oflags = kickWanted(context, count);
  return 0;
}

/**
 * Reclaims the slot's id and buffer, into bufs[i].
 * False if the id is not outstanding.
 */
function takeSlot(context: Context, index: u32, idFlags: u32, wrap: u32, i: u32): boolean {
  const ring = view(PACKED, context, PRIVATE_OFFSET);
  const id = idFlags & 0xffff;
  if (id >= bufs) return false;
  const state = stateOf(context, id);
  if (state.busy === 0) return false;
  const slot = slotAt(context, index);
  const buffer = elements(BUF, context, BUFS_OFFSET)[i];
  state.busy = 0;
  buffer.cookie = state.cookie;
  buffer.paddr = slot.addr;
  buffer.len = slot.len;
  state.next = ring.next_free_id;
  ring.next_free_id = u16(id);
  ring.next_used_idx = u16((index + 1) & (bufs - 1));
  ring.used_wrap = u8(wrap ^ ((index + 1) >>> lapShift));
  return true;
}

/** 0: the host has used the slot; DESC_USED: it is published, not used; anything else: neither. */
function stateOfSlot(idFlags: u32, wrap: u32): u32 {
  return ((idFlags >>> 16) & BOTH) ^ (wrap * BOTH);
}

/** Reclaims one completed slot: 1; 0 if none is complete; -1 if its id is invalid. */
function collect(context: Context): number {
  const ring = view(PACKED, context, PRIVATE_OFFSET);
  const shared = view(CONTEXT, context, 0);
  const index = u32(ring.next_used_idx) & (bufs - 1);
  const wrap = u32(ring.used_wrap) & 1;
  shared.oflags = 0;
  const idFlags = slotAt(context, index).id_flags;
  if (stateOfSlot(idFlags, wrap) !== 0) return 0;
  if (!takeSlot(context, after(index, idFlags), idFlags, wrap, 0)) return -1;
  shared.num_bufs = 1;
  return 1;
}

export function txc(context: Context): number {
  return collect(context);
}

export function rxc(context: Context): number {
  const result = collect(context);
  if (form === "v1") {
    if (result !== 1) return result;
    // The driver handles a failure; the buffer is reclaimed in any case.
    const failed = call(HELPERS.rx_pkt_alloc, context);
    if (failed < 0) return failed;
  }
  return result;
}

/** Moves the host's position behind the slot that was reclaimed. */
function bringHost(ring: View<typeof PACKED>): void {
  const slot = u32(ring.next_used_idx);
  const wrap = u32(ring.used_wrap);
  ring.host_indices = slot | (slot << 16);
  ring.host_wraps = (wrap * 0x0101) | ((wrap * BOTH) << 16);
}

/**
 * Leaves the driver's event as registration does: an interrupt at the next slot to complete. The
 * event that was armed before names a slot that is reclaimed, or none; a driver that arms nothing
 * when it opens would get no interrupt.
 */
function interruptOnNext(ring: View<typeof PACKED>): void {
  ring.driver_event = u32(ring.next_used_idx) | (u32(ring.used_wrap) << 15) | (EVENT_AT << 16);
}

/**
 * Reclaims up to `most` slots, completed or not, while the host is stopped. Moves the
 * host's position and the driver's event along: the ring is empty at the end, and the first
 * completion interrupts.
 */
function reclaim(context: Context, most: number): number {
  const ring = view(PACKED, context, PRIVATE_OFFSET);
  const shared = view(CONTEXT, context, 0);
  shared.oflags = 0;
  let count: u32 = 0;
  for (let i = 0; i < most; i++) {
    const index = u32(ring.next_used_idx) & (bufs - 1);
    const wrap = u32(ring.used_wrap) & 1;
    const idFlags = slotAt(context, index).id_flags;
    const state = stateOfSlot(idFlags, wrap);
    if (state !== 0 && state !== DESC_USED) break;
    if (!takeSlot(context, index, idFlags, wrap, i)) return -1;
    if (state !== 0) bringHost(ring);
    count = i + 1;
  }
  interruptOnNext(ring);
  if (count === 0) return 0;
  shared.num_bufs = count;
  return 1;
}

export function txr(context: Context): number {
  return reclaim(context, 1);
}

export function rxr(context: Context): number {
  return reclaim(context, MAX_BUFS);
}

/** Interrupt at the n-th completion from here, n = min_completed_bufs; 0: never. */
function arm(context: Context): number {
  const ring = view(PACKED, context, PRIVATE_OFFSET);
  const wanted = view(CONTEXT, context, 0).min_completed_bufs;
  if (wanted === 0) {
    ring.driver_event = EVENT_NEVER << 16;
    return 0;
  }
  if (wanted > bufs) return -1;
  const target = (u32(ring.next_used_idx) & (bufs - 1)) + wanted - 1;
  const wrap = (u32(ring.used_wrap) ^ (target >>> lapShift)) & 1;
  const index = target & (bufs - 1);
  const event = index | (wrap << 15) | (EVENT_AT << 16);
  if (form === "helperfree") {
    exchange(ring.driver_event, event);
  } else {
    ring.driver_event = event;
    call(HELPERS.smp_mb_full);
  }
  // Is that one used already?
  return stateOfSlot(slotAt(context, index).id_flags, wrap) === 0 ? 1 : 0;
}

export function txi(context: Context): number {
  return arm(context);
}

export function rxi(context: Context): number {
  return arm(context);
}

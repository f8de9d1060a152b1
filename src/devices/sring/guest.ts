/**
 * sring's guest programs. Compiled, never run as JavaScript (`docs/compiler.md`); specialised for
 * one ring size, so the mask is a constant and every slot is provably inside the context.
 *
 * Publishing, interrupts and their memory order are in `guest-ring.ts`. Reclaiming completions
 * loads `cons`, then the entry: the slot's index is computed through `cons` (`after`), an address
 * dependency, which orders the two loads on every CPU at the cost of two ALU instructions.
 */
import {
  BUF,
  BUFS_OFFSET,
  CONTEXT,
  HELPERS,
  MAX_BUFS,
  PRIVATE_OFFSET,
  type ProgramForm,
} from "../../abi/index.ts";
import {
  after,
  type Context,
  call,
  elements,
  type u32,
  type View,
  view,
} from "../../compiler/language.ts";
import { interruptOnFirstReceived, interruptOnFirstSent, publish } from "./guest-ring.ts";
import { SRING, SRING_DESC } from "./layout.ts";

export { rxi, txi } from "./guest-ring.ts";

/** Buffers of the queue, a power of two. */
declare const bufs: number;
declare const form: ProgramForm;

const RING = PRIVATE_OFFSET + SRING.size;

function slotOf(context: Context, index: u32): View<typeof SRING_DESC> {
  return elements(SRING_DESC, context, RING)[index & (bufs - 1)];
}

/** Fills the slot from the buffer. */
function fill(slot: View<typeof SRING_DESC>, buffer: View<typeof BUF>): void {
  slot.cookie = buffer.cookie;
  slot.paddr = buffer.paddr;
  slot.len = buffer.len;
}

/** Fills the buffer from the slot. */
function take(slot: View<typeof SRING_DESC>, buffer: View<typeof BUF>): void {
  buffer.cookie = slot.cookie;
  buffer.paddr = slot.paddr;
  buffer.len = slot.len;
}

export function txp(context: Context): number {
  const ring = view(SRING, context, PRIVATE_OFFSET);
  const count = view(CONTEXT, context, 0).num_bufs;
  if (count !== 1) return -1;
  fill(slotOf(context, ring.prod), elements(BUF, context, BUFS_OFFSET)[0]);
  return publish(context, count);
}

export function rxp(context: Context): number {
  const ring = view(SRING, context, PRIVATE_OFFSET);
  const buffers = elements(BUF, context, BUFS_OFFSET);
  const count = view(CONTEXT, context, 0).num_bufs;
  if (count > MAX_BUFS) return -1;
  const prod = ring.prod;
  for (let i = 0; i < count; i++) fill(slotOf(context, prod + i), buffers[i]);
  return publish(context, count);
}

/** Reclaims the completed slot at `clear` into bufs[0]. Returns false if none is complete. */
function takeCompleted(context: Context): boolean {
  const ring = view(SRING, context, PRIVATE_OFFSET);
  const shared = view(CONTEXT, context, 0);
  const cons = ring.cons;
  const clear = ring.clear;
  shared.oflags = 0;
  // XOR, not `===`: `after` needs the difference anyway.
  if ((clear ^ cons) === 0) return false;
  take(slotOf(context, after(clear, cons)), elements(BUF, context, BUFS_OFFSET)[0]);
  shared.num_bufs = 1;
  ring.clear = clear + 1;
  return true;
}

export function txc(context: Context): number {
  return takeCompleted(context) ? 1 : 0;
}

export function rxc(context: Context): number {
  if (!takeCompleted(context)) return 0;
  if (form === "v1") {
    // The driver handles a failure; the buffers are reclaimed in any case.
    const result = call(HELPERS.rx_pkt_alloc, context);
    if (result < 0) return result;
  }
  return 1;
}

/**
 * Reclaims up to `most` slots, completed or not, while the host is stopped. If `clear` passes
 * `cons` (old clear <= cons < new clear, modulo 2^32), `cons` is moved too, so that the ring ends
 * up empty.
 */
function reclaim(context: Context, most: number): number {
  const ring = view(SRING, context, PRIVATE_OFFSET);
  const shared = view(CONTEXT, context, 0);
  const buffers = elements(BUF, context, BUFS_OFFSET);
  const prod = ring.prod;
  const clear = ring.clear;
  shared.oflags = 0;
  let count = prod - clear;
  if (count === 0) return 0;
  if (most === 1) count = 1;
  else if (count > most) count = most;
  shared.num_bufs = count;
  const cons = ring.cons;
  ring.clear = clear + count;
  if (cons - clear < count) ring.cons = clear + count;
  if (most === 1) take(slotOf(context, clear), buffers[0]);
  else for (let i = 0; i < count; i++) take(slotOf(context, clear + i), buffers[i]);
  return 1;
}

export function rxr(context: Context): number {
  interruptOnFirstReceived(context);
  return reclaim(context, MAX_BUFS);
}

export function txr(context: Context): number {
  interruptOnFirstSent(context);
  return reclaim(context, 1);
}

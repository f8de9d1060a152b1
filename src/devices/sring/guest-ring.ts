/**
 * What the guest programs of sring and sring_gso share: publishing, arming, `txi` and `rxi`, on the
 * control words that both have. Compiled as part of their `guest.ts`.
 *
 * Memory order (publishing, kicks, interrupts). A value-returning atomic is fully ordered in the
 * Linux kernel's memory model (Documentation/atomic_t.txt), so the HELPERFREE form publishes `prod`
 * with a fetching add: the entries before it, the check of `kick_enabled` after it. `txi` and `rxi`
 * arm with an exchange for the same reason. The v1 form uses plain stores and the helper
 * `smp_mb_full`, as version 1 programs do, and needs a guest with x86 store order.
 */
import {
  CONTEXT,
  HELPERS,
  OFLAG_KICK_NEEDED,
  PRIVATE_OFFSET,
  type ProgramForm,
} from "../../abi/index.ts";
import {
  type Context,
  call,
  exchange,
  fetchAdd,
  type u32,
  type View,
  view,
} from "../../compiler/language.ts";
import { SRING } from "./layout.ts";

declare const form: ProgramForm;

/**
 * prod += count, released and followed by a full barrier; then `oflags`.
 *
 * HELPERFREE: clears the kick request when it grants it, so that the packets published until the
 * host wakes do not each cost a doorbell. If the host has renewed its request meanwhile, the store
 * clears that, too; the doorbell, which always follows, is then still to come. Version 1 drivers
 * can lose a kick, and would then lose all that follow; there the request stays until the host
 * clears it.
 */
export function publish(context: Context, count: u32): number {
  const ring = view(SRING, context, PRIVATE_OFFSET);
  if (form === "helperfree") {
    fetchAdd(ring.prod, count);
  } else {
    ring.prod += count;
    call(HELPERS.smp_mb_full);
  }
  let oflags = 0;
  if (ring.kick_enabled !== 0) {
    if (form === "helperfree") ring.kick_enabled = 0;
    oflags = OFLAG_KICK_NEEDED;
  }
  view(CONTEXT, context, 0).oflags = oflags;
  return 0;
}

/** intr = value, followed by a full barrier. */
function arm(ring: View<typeof SRING>, value: u32): void {
  if (form === "helperfree") {
    exchange(ring.intr, value);
  } else {
    ring.intr = value;
    call(HELPERS.smp_mb_full);
  }
}

export function txi(context: Context): number {
  const ring = view(SRING, context, PRIVATE_OFFSET);
  const wanted = view(CONTEXT, context, 0).min_completed_bufs;
  if (wanted === 0) return 0;
  const done = ring.cons;
  const clear = ring.clear;
  if (done - clear >= wanted) return 1;
  // The slot whose completion interrupts.
  arm(ring, clear + wanted - 1);
  return ring.cons - ring.clear < wanted ? 0 : 1;
}

export function rxi(context: Context): number {
  const ring = view(SRING, context, PRIVATE_OFFSET);
  const wanted = view(CONTEXT, context, 0).min_completed_bufs;
  if (ring.cons - ring.clear < wanted) {
    arm(ring, 1);
    if (ring.cons - ring.clear < wanted) return 0;
  }
  ring.intr = 0;
  return 1;
}

/**
 * Leaves the receive ring's interrupt setting as registration does: the first packet interrupts. A
 * driver may close while it has interrupts off, in the middle of a poll, and a version 1 driver
 * arms nothing when it opens again.
 */
export function interruptOnFirstReceived(context: Context): void {
  view(SRING, context, PRIVATE_OFFSET).intr = 1;
}

/** The same for the transmit ring: the slot that is published next interrupts when completed. */
export function interruptOnFirstSent(context: Context): void {
  const ring = view(SRING, context, PRIVATE_OFFSET);
  ring.intr = ring.prod;
}

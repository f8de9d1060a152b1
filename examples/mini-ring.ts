/**
 * A NIC in one file: the layout of its ring, the guest's programs, and the host's half.
 *
 *   bpfhv test ./mini-ring.ts                               the ring suite
 *   bpfhv serve --device ./mini-ring.ts --socket nic.sock   in a virtual machine
 *
 * One descriptor per packet, no offloads; docs/extending.md is the contract.
 */
import type { Context, u32 } from "bpfhv/compiler/language";
import { after, call, elements, exchange, fetchAdd, view } from "bpfhv/compiler/language";
import * as nic from "bpfhv/nic";

/** clear <= cons <= prod <= clear + bufs, modulo 2^32. The two sides' words: 128 bytes apart. */
const MINI = nic.struct("mini_ring", 256, {
  prod: nic.field.u32(0), // guest: next slot to publish
  clear: nic.field.u32(4), // guest: next slot to reclaim
  intr: nic.field.u32(8), // guest: interrupt when this slot is complete
  cons: nic.field.u32(128), // host: next slot to complete
  kick: nic.field.u32(132), // host: 1 if it wants a kick
});
const SLOT = nic.struct("mini_slot", 24, {
  cookie: nic.field.u64(0),
  paddr: nic.field.u64(8),
  len: nic.field.u32(16),
});

/* Guest half: compiled to eBPF, for one ring size. */

declare const bufs: number;
declare const form: nic.ProgramForm;

function publish(context: Context, count: u32): number {
  const ring = view(MINI, context, nic.PRIVATE_OFFSET);
  for (let i = 0; i < count; i++) {
    const slot = elements(SLOT, context, nic.PRIVATE_OFFSET + MINI.size)[
      (ring.prod + i) & (bufs - 1)
    ];
    const buffer = elements(nic.BUF, context, nic.BUFS_OFFSET)[i];
    slot.cookie = buffer.cookie;
    slot.paddr = buffer.paddr;
    slot.len = buffer.len;
  }
  fetchAdd(ring.prod, count); // full barrier: slots before it, the check of `kick` after it
  const kick = ring.kick;
  if (form === "helperfree") ring.kick = 0; // one kick per request
  view(nic.CONTEXT, context, 0).oflags = kick !== 0 ? nic.OFLAG_KICK_NEEDED : 0;
  return 0;
}

function take(context: Context, index: u32): number {
  const slot = elements(SLOT, context, nic.PRIVATE_OFFSET + MINI.size)[index & (bufs - 1)];
  const buffer = elements(nic.BUF, context, nic.BUFS_OFFSET)[0];
  buffer.cookie = slot.cookie;
  buffer.paddr = slot.paddr;
  buffer.len = slot.len;
  view(nic.CONTEXT, context, 0).num_bufs = 1;
  view(MINI, context, nic.PRIVATE_OFFSET).clear += 1;
  return 1;
}

export function txp(context: Context): number {
  return view(nic.CONTEXT, context, 0).num_bufs === 1 ? publish(context, 1) : -1;
}
export function rxp(context: Context): number {
  const count = view(nic.CONTEXT, context, 0).num_bufs;
  return count > nic.MAX_BUFS ? -1 : publish(context, count);
}
export function txc(context: Context): number {
  const ring = view(MINI, context, nic.PRIVATE_OFFSET);
  const cons = ring.cons;
  const clear = ring.clear;
  view(nic.CONTEXT, context, 0).oflags = 0;
  return clear === cons ? 0 : take(context, after(clear, cons)); // `cons`, then the slot
}
export function rxc(context: Context): number {
  if (txc(context) === 0) return 0;
  const failed = form === "v1" ? call(nic.HELPERS.rx_pkt_alloc, context) : 0;
  return failed < 0 ? failed : 1;
}
export function txi(context: Context): number {
  const ring = view(MINI, context, nic.PRIVATE_OFFSET);
  const wanted = view(nic.CONTEXT, context, 0).min_completed_bufs;
  exchange(ring.intr, ring.clear + wanted - 1); // 0: a slot behind, which completes no more
  return ring.cons - ring.clear < wanted ? 0 : 1;
}
export function rxi(context: Context): number {
  return txi(context);
}
export function txr(context: Context): number {
  const ring = view(MINI, context, nic.PRIVATE_OFFSET);
  const clear = ring.clear;
  view(nic.CONTEXT, context, 0).oflags = 0;
  ring.intr = ring.prod; // open again, the first completion interrupts
  if (clear === ring.prod) return 0;
  if (ring.cons === clear) ring.cons = clear + 1;
  return take(context, clear);
}
export function rxr(context: Context): number {
  return txr(context);
}

/* Host half: runs in the NIC's worker. What it reads is the guest's, and hostile. */

function parts(name: string, ring: nic.RingConfig): [nic.IndexControl, nic.SlotPath] {
  const control = new nic.IndexControl(ring, MINI, { name, interrupt: "slot" });
  return [control, new nic.SlotPath(ring, control, MINI.size, SLOT)];
}

export default nic.defineNic({
  name: "mini_ring",
  programs: import.meta.url,
  layouts: { nic, MINI, SLOT },
  privateSize: (bufs) => MINI.size + SLOT.size * bufs,
  initialise: (_direction, words) => words.store(nic.wordOf(MINI.kick), 1),
  tx: (ring) => nic.joinTx(...parts("mini.txq", ring)),
  rx: (ring) => nic.joinRx(...parts("mini.rxq", ring)),
});

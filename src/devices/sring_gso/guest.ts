/**
 * sring_gso's programs. Indices, kicks and interrupts are sring's; a packet is several descriptors, and its
 * metadata (a virtio_net_hdr: in the context in HELPERFREE form, from helpers in version 1 form) travels in
 * the last one of them.
 */
import {
  BUF,
  BUFS_OFFSET,
  CONTEXT,
  HELPERS,
  MAX_BUFS,
  METADATA,
  OFLAG_KICK_NEEDED,
  PRIVATE_OFFSET,
  PROGRAM_IDS,
  type ProgramForm,
  type ProgramId,
  type ProgramSet,
  validQueueBufs,
} from "../../abi/index.ts";
import {
  Assembler,
  R0,
  R1,
  R2,
  R3,
  R4,
  R5,
  R6,
  R7,
  R8,
  type Register,
  shifted,
} from "../../ebpf/assembler.ts";
import { SRING } from "../sring/layout.ts";
import { DESC_EOP, DESC_NEEDS_CSUM, GSO_RX_DESC, GSO_TX_DESC } from "./layout.ts";

export interface SringGsoProgramOptions {
  /** Buffers of the queue: a power of two in 16..8192. */
  readonly bufs: number;
  readonly form: ProgramForm;
}

const PROD = shifted(SRING.prod, PRIVATE_OFFSET);
const INTR = shifted(SRING.intr, PRIVATE_OFFSET);
const CONS = shifted(SRING.cons, PRIVATE_OFFSET);
const KICK_ENABLED = shifted(SRING.kick_enabled, PRIVATE_OFFSET);
const CLEAR = shifted(SRING.clear, PRIVATE_OFFSET);
const RING = PRIVATE_OFFSET + SRING.size;

const inSlot = (name: keyof typeof GSO_TX_DESC.fields) => shifted(GSO_TX_DESC[name], RING);
const inBuffer = (name: keyof typeof BUF.fields) => shifted(BUF[name], BUFS_OFFSET);
const SLOT_FLAGS = inSlot("flags");
/** len and flags in one: a length below 65536 leaves the flags 0. */
const SLOT_LEN_FLAGS = { ...inSlot("len"), width: 4 } as const;

/** Version 1 programs have helpers put the virtio_net_hdr where HELPERFREE drivers do: reserved bytes there. */
const HEADER = METADATA.flags.offset;

const HEADER_WORDS = ["csum_start", "csum_offset", "hdr_len", "gso_size"] as const;

/** index (a register, used up) becomes context + offset of its slot; add RING for the address. */
function slotAddress(p: Assembler, index: Register, bufs: number): void {
  p.alu64.and(index, bufs - 1);
  p.alu64.mul(index, GSO_TX_DESC.size);
  p.alu64.add(index, R1);
}

/** prod += count (a register, used up); oflags; returns 0. As in sring, the reasons for each step, too. */
function publish(p: Assembler, form: ProgramForm, count: Register): void {
  const context = form === "v1" ? R6 : R1;
  if (form === "helperfree") {
    p.atomic.fetch_add(context, PROD, count);
  } else {
    p.load(R0, context, PROD).alu32.add(R0, count).store(context, PROD, R0);
    p.call(HELPERS.smp_mb_full);
  }
  p.load(R2, context, KICK_ENABLED);
  p.jump.eq(R2, 0, "quiet");
  if (form === "helperfree") p.store(context, KICK_ENABLED, 0);
  p.alu64.mov(R2, OFLAG_KICK_NEEDED);
  p.label("quiet").store(context, CONTEXT.oflags, R2);
  p.alu64.mov(R0, 0);
}

/**
 * Fills R2 slots from prod on with bufs[], R2 in 1..64 and used up; R4 is the last slot then. A length that
 * has no place in 16 bits ends the program with -1; nothing is published by then.
 */
function fillSlots(p: Assembler, bufs: number): void {
  p.load(R3, R1, PROD);
  p.alu64.mov(R5, R1);
  p.alu64.mov(R8, 0);
  p.label("next");
  p.alu64.mov(R4, R3);
  slotAddress(p, R4, bufs);
  p.load(R0, R5, inBuffer("cookie")).store(R4, inSlot("cookie"), R0);
  p.load(R0, R5, inBuffer("paddr")).store(R4, inSlot("paddr"), R0);
  p.load(R0, R5, inBuffer("len")).store(R4, SLOT_LEN_FLAGS, R0);
  p.alu64.or(R8, R0);
  p.alu64.add(R3, 1);
  p.alu64.add(R5, BUF.size);
  p.alu64.sub(R2, 1);
  p.jump.gt(R2, 0, "next");
  p.alu64.mov(R0, -1);
  p.jump.gt(R8, 0xffff, "end");
}

/** The packet's metadata into its last slot, R4. */
function putMetadata(p: Assembler): void {
  p.load(R2, R1, METADATA.flags);
  p.alu64.and(R2, 1);
  p.alu64.mul(R2, DESC_NEEDS_CSUM);
  p.alu64.or(R2, DESC_EOP);
  p.store(R4, SLOT_FLAGS, R2);
  for (const name of HEADER_WORDS) {
    p.load(R2, R1, METADATA[name]).store(R4, shifted(GSO_TX_DESC[name], RING), R2);
  }
  p.load(R2, R1, METADATA.gso_type).store(R4, inSlot("gso_type"), R2);
}

/** The metadata of the last slot, R4, into the header. */
function takeMetadata(p: Assembler): void {
  p.load(R0, R4, SLOT_FLAGS);
  p.alu64.rsh(R0, 1);
  p.alu64.and(R0, 1);
  p.store(R1, METADATA.flags, R0);
  for (const name of HEADER_WORDS) {
    p.load(R0, R4, shifted(GSO_RX_DESC[name], RING)).store(R1, METADATA[name], R0);
  }
  p.load(R0, R4, inSlot("gso_type")).store(R1, METADATA.gso_type, R0);
}

function txp(p: Assembler, { bufs, form }: SringGsoProgramOptions): void {
  if (form === "v1") {
    p.alu64.mov(R6, R1);
    p.alu64.mov(R2, R1);
    p.alu64.add(R2, HEADER);
    p.call(HELPERS.pkt_virtio_net_md_get);
    p.alu64.mov(R1, R6);
  }
  p.load(R2, R1, CONTEXT.num_bufs);
  p.alu64.mov(R0, -1);
  p.jump.eq(R2, 0, "end");
  p.jump.gt(R2, MAX_BUFS, "end");
  p.alu64.mov(R7, R2);
  fillSlots(p, bufs);
  putMetadata(p);
  publish(p, form, R7);
  p.label("end").exit();
}

function rxp(p: Assembler, { bufs, form }: SringGsoProgramOptions): void {
  if (form === "v1") p.alu64.mov(R6, R1);
  p.load(R2, R1, CONTEXT.num_bufs);
  p.alu64.mov(R0, -1);
  p.jump.gt(R2, MAX_BUFS, "end");
  p.alu64.mov(R7, R2);
  p.jump.eq(R2, 0, "publish");
  fillSlots(p, bufs);
  p.label("publish");
  publish(p, form, R7);
  p.label("end").exit();
}

/**
 * Takes the slots of one packet from `clear` on into bufs[]: up to and including the one with EOP, the end
 * of what `limit` says is there, or 64. Leaves their number in R2, the new `clear` in R3 and in its place,
 * the last slot in R4. Ends the program with 0 where there is none.
 */
function takePacket(p: Assembler, bufs: number, limit: typeof CONS): void {
  p.load(R6, R1, limit);
  p.load(R3, R1, CLEAR);
  p.store(R1, CONTEXT.oflags, 0);
  p.alu64.mov(R0, 0);
  p.alu64.xor(R3, R6);
  p.jump.eq(R3, 0, "end");
  // clear again, but known only once the limit is: the address dependency.
  p.alu64.xor(R3, R6);
  p.alu64.mov(R5, R1);
  p.alu64.mov(R2, 0);
  p.label("next");
  p.alu64.mov(R4, R3);
  slotAddress(p, R4, bufs);
  takeSlot(p);
  p.load(R0, R4, SLOT_FLAGS);
  p.alu32.add(R3, 1);
  p.alu64.add(R5, BUF.size);
  p.alu64.add(R2, 1);
  p.jump.set(R0, DESC_EOP, "taken");
  p.jump.eq(R3, R6, "taken");
  p.jump.lt(R2, MAX_BUFS, "next");
  p.label("taken");
  p.store(R1, CONTEXT.num_bufs, R2);
  p.store(R1, CLEAR, R3);
}

/** Fills the buffer at R5 from the slot at R4. */
function takeSlot(p: Assembler): void {
  p.load(R0, R4, inSlot("cookie")).store(R5, inBuffer("cookie"), R0);
  p.load(R0, R4, inSlot("paddr")).store(R5, inBuffer("paddr"), R0);
  p.load(R0, R4, inSlot("len")).store(R5, inBuffer("len"), R0);
}

function txc(p: Assembler, { bufs }: SringGsoProgramOptions): void {
  takePacket(p, bufs, CONS);
  p.alu64.mov(R0, 1);
  p.label("end").exit();
}

function rxc(p: Assembler, { bufs, form }: SringGsoProgramOptions): void {
  takePacket(p, bufs, CONS);
  takeMetadata(p);
  if (form === "v1") {
    p.alu64.mov(R6, R1);
    p.call(HELPERS.rx_pkt_alloc);
    p.jump32.slt(R0, 0, "end");
    p.alu64.mov(R1, R6);
    p.alu64.mov(R2, R1);
    p.alu64.add(R2, HEADER);
    p.call(HELPERS.pkt_virtio_net_md_set);
  }
  p.alu64.mov(R0, 1);
  p.label("end").exit();
}

/** Takes a packet back, used by the host or not, while the host is stopped; `cons` comes along. */
function txr(p: Assembler, { bufs }: SringGsoProgramOptions): void {
  takePacket(p, bufs, PROD);
  bringCons(p);
  p.alu64.mov(R0, 1);
  p.label("end").exit();
}

/** Where `clear` passed `cons` (old clear <= cons < new clear, modulo 2^32): cons = clear. R2 = how far it went. */
function bringCons(p: Assembler): void {
  p.load(R4, R1, CONS);
  p.alu64.mov(R5, R3);
  p.alu32.sub(R5, R2);
  p.alu32.sub(R4, R5);
  p.jump.ge(R4, R2, "behind");
  p.store(R1, CONS, R3);
  p.label("behind");
}

function rxr(p: Assembler, { bufs }: SringGsoProgramOptions): void {
  p.load(R6, R1, PROD);
  p.load(R3, R1, CLEAR);
  p.store(R1, CONTEXT.oflags, 0);
  p.alu64.mov(R0, 0);
  p.jump.eq(R3, R6, "end");
  p.alu64.mov(R5, R1);
  p.alu64.mov(R2, 0);
  p.label("next");
  p.alu64.mov(R4, R3);
  slotAddress(p, R4, bufs);
  takeSlot(p);
  p.alu32.add(R3, 1);
  p.alu64.add(R5, BUF.size);
  p.alu64.add(R2, 1);
  p.jump.eq(R3, R6, "taken");
  p.jump.lt(R2, MAX_BUFS, "next");
  p.label("taken");
  p.store(R1, CONTEXT.num_bufs, R2);
  p.store(R1, CLEAR, R3);
  bringCons(p);
  p.alu64.mov(R0, 1);
  p.label("end").exit();
}

/** R4 = clear; R3 = completed and not collected. */
function loadDone(p: Assembler, context: Register): void {
  p.load(R3, context, CONS);
  p.load(R4, context, CLEAR);
  p.alu32.sub(R3, R4);
}

/** INTR = value (a register, used up), followed by a full barrier. R1..R5 are lost in the v1 form. */
function arm(p: Assembler, form: ProgramForm, value: Register): void {
  if (form === "helperfree") p.atomic.xchg(R1, INTR, value);
  else p.store(R1, INTR, value).call(HELPERS.smp_mb_full);
}

function txi(p: Assembler, { form }: SringGsoProgramOptions): void {
  p.alu64.mov(R6, R1);
  p.load(R7, R6, CONTEXT.min_completed_bufs);
  p.alu64.mov(R0, 0);
  p.jump.eq(R7, 0, "end");
  loadDone(p, R6);
  p.jump.ge(R3, R7, "ready");
  // The slot whose completion interrupts: clear + wanted - 1.
  p.alu32.add(R4, R7);
  p.alu32.sub(R4, 1);
  arm(p, form, R4);
  loadDone(p, R6);
  p.alu64.mov(R0, 0);
  p.jump.lt(R3, R7, "end");
  p.label("ready").alu64.mov(R0, 1);
  p.label("end").exit();
}

function rxi(p: Assembler, { form }: SringGsoProgramOptions): void {
  p.alu64.mov(R6, R1);
  p.load(R7, R6, CONTEXT.min_completed_bufs);
  loadDone(p, R6);
  p.jump.ge(R3, R7, "ready");
  p.alu64.mov(R5, 1);
  arm(p, form, R5);
  loadDone(p, R6);
  p.alu64.mov(R0, 0);
  p.jump.lt(R3, R7, "end");
  p.label("ready").store(R6, INTR, 0);
  p.alu64.mov(R0, 1);
  p.label("end").exit();
}

const PROGRAMS = { rxp, rxc, rxi, rxr, txp, txc, txi, txr };

/**
 * sring_gso's program set for queues of `bufs` buffers.
 * @throws RangeError for an illegal number of buffers.
 */
export function sringGsoPrograms(options: SringGsoProgramOptions): ProgramSet {
  if (!validQueueBufs(options.bufs)) {
    throw new RangeError(`sring_gso: ${options.bufs} buffers: not a power of two in 16..8192`);
  }
  const code = new Map<ProgramId, Uint8Array>();
  for (const [name, write] of Object.entries(PROGRAMS)) {
    const p = new Assembler();
    write(p, options);
    code.set(PROGRAM_IDS[name as keyof typeof PROGRAMS], p.assemble());
  }
  return { form: options.form, code };
}

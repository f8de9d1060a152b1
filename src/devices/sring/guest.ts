/**
 * sring's guest programs, written with the assembler and specialised for one ring size: the mask is a
 * constant, so every slot is provably inside the context.
 *
 * Memory order (publishing, kicks, interrupts). A value-returning atomic is fully ordered in the Linux kernel's
 * memory model (Documentation/atomic_t.txt), so the HELPERFREE form publishes `prod` with a fetching add: the
 * entries before it, the look at `kick_enabled` after it. `txi` and `rxi` arm with an exchange for the same
 * reason. Collecting loads `cons`, then the entry: the slot's address is computed through `cons` (x ^ cons ^
 * cons), an address dependency, which orders the two loads on every CPU at the price of two ALU instructions.
 * The v1 form uses plain stores and the helper `smp_mb_full`, as version 1 programs do, and needs a guest with
 * x86 store order.
 */
import {
  BUF,
  BUFS_OFFSET,
  CONTEXT,
  HELPERS,
  MAX_BUFS,
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
  type Register,
  shifted,
} from "../../ebpf/assembler.ts";
import { SRING, SRING_DESC } from "./layout.ts";

export interface SringProgramOptions {
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

/** What a descriptor and a buffer have in common: [field of the descriptor, field of the buffer]. */
const COPIED = (["cookie", "paddr", "len"] as const).map(
  (name) => [shifted(SRING_DESC[name], RING), shifted(BUF[name], BUFS_OFFSET)] as const,
);

/** The register that holds the context: R1, or R6 where helper calls destroy R1. */
function contextOf(form: ProgramForm): Register {
  return form === "v1" ? R6 : R1;
}

/** index (a register, used up) becomes context + offset of its slot; add RING for the address. */
function slotAddress(p: Assembler, index: Register, bufs: number): void {
  p.alu64.and(index, bufs - 1);
  p.alu64.mul(index, SRING_DESC.size);
  p.alu64.add(index, R1);
}

/** Fills the slot from the buffer. */
function fillSlot(p: Assembler, slot: Register, buffer: Register, temp: Register): void {
  for (const [inSlot, inBuffer] of COPIED) {
    p.load(temp, buffer, inBuffer).store(slot, inSlot, temp);
  }
}

/** Fills the buffer from the slot. */
function takeSlot(p: Assembler, slot: Register, buffer: Register, temp: Register): void {
  for (const [inSlot, inBuffer] of COPIED) {
    p.load(temp, slot, inSlot).store(buffer, inBuffer, temp);
  }
}

/**
 * prod += count (a register, used up), released and followed by a full barrier; then `oflags`; returns 0.
 *
 * HELPERFREE: a wish for a kick is taken back once it is going to be granted, so that the packets published until
 * the host wakes do not each cost a doorbell. Should the host have renewed its wish meanwhile, the store swallows
 * that, too: but then the doorbell, which always follows, is still to come. Version 1 drivers can lose a kick, and
 * with it would lose all that follow; there the wish stands until the host takes it back.
 */
function publish(p: Assembler, form: ProgramForm, count: Register): void {
  const context = contextOf(form);
  if (form === "helperfree") {
    p.atomic.fetch_add(context, PROD, count);
  } else {
    p.alu64.mov(R6, R1);
    p.load(R0, R1, PROD).alu32.add(R0, count).store(R1, PROD, R0);
    p.call(HELPERS.smp_mb_full);
  }
  p.load(R2, context, KICK_ENABLED);
  p.jump.eq(R2, 0, "quiet");
  if (form === "helperfree") p.store(context, KICK_ENABLED, 0);
  p.alu64.mov(R2, OFLAG_KICK_NEEDED);
  p.label("quiet").store(context, CONTEXT.oflags, R2);
  p.alu64.mov(R0, 0);
}

/** INTR = value (a register, used up), followed by a full barrier. R1..R5 are lost in the v1 form. */
function arm(p: Assembler, form: ProgramForm, value: Register): void {
  if (form === "helperfree") {
    p.atomic.xchg(R1, INTR, value);
  } else {
    p.store(R1, INTR, value).call(HELPERS.smp_mb_full);
  }
}

function txp(p: Assembler, { bufs, form }: SringProgramOptions): void {
  p.load(R2, R1, CONTEXT.num_bufs);
  p.alu64.mov(R0, -1);
  p.jump.ne(R2, 1, "end");
  p.load(R3, R1, PROD);
  slotAddress(p, R3, bufs);
  fillSlot(p, R3, R1, R4);
  publish(p, form, R2);
  p.label("end").exit();
}

function rxp(p: Assembler, { bufs, form }: SringProgramOptions): void {
  p.load(R2, R1, CONTEXT.num_bufs);
  p.alu64.mov(R0, -1);
  p.jump.gt(R2, MAX_BUFS, "end");
  // R2 counts down (a shape whose end every kernel's verifier sees), R3 is the slot, R5 walks over bufs[].
  p.load(R3, R1, PROD);
  p.alu64.mov(R5, R1);
  p.jump.eq(R2, 0, "publish");
  p.label("next");
  p.alu64.mov(R4, R3);
  slotAddress(p, R4, bufs);
  fillSlot(p, R4, R5, R0);
  p.alu64.add(R3, 1);
  p.alu64.add(R5, BUF.size);
  p.alu64.sub(R2, 1);
  p.jump.gt(R2, 0, "next");
  p.label("publish");
  p.load(R2, R1, CONTEXT.num_bufs);
  publish(p, form, R2);
  p.label("end").exit();
}

/** Takes the completed slot at `clear` into bufs[0] and moves on, or ends the program with 0. */
function takeCompleted(p: Assembler, bufs: number): void {
  p.load(R2, R1, CONS);
  p.load(R3, R1, CLEAR);
  p.store(R1, CONTEXT.oflags, 0);
  p.alu64.mov(R0, 0);
  p.alu64.mov(R4, R3);
  p.alu64.xor(R4, R2);
  p.jump.eq(R4, 0, "end");
  // clear again, but known only once cons is: the address dependency.
  p.alu64.xor(R4, R2);
  slotAddress(p, R4, bufs);
  takeSlot(p, R4, R1, R5);
  p.store(R1, CONTEXT.num_bufs, 1);
  p.alu32.add(R3, 1);
  p.store(R1, CLEAR, R3);
}

function txc(p: Assembler, { bufs }: SringProgramOptions): void {
  takeCompleted(p, bufs);
  p.alu64.mov(R0, 1);
  p.label("end").exit();
}

function rxc(p: Assembler, { bufs, form }: SringProgramOptions): void {
  takeCompleted(p, bufs);
  if (form === "v1") {
    // R1 is still the context. A failure is the driver's to see; the buffers are gone either way.
    p.call(HELPERS.rx_pkt_alloc);
    p.jump32.slt(R0, 0, "end");
  }
  p.alu64.mov(R0, 1);
  p.label("end").exit();
}

/** R4 = clear; R3 = completed and not collected. */
function loadDone(p: Assembler, context: Register): void {
  p.load(R3, context, CONS);
  p.load(R4, context, CLEAR);
  p.alu32.sub(R3, R4);
}

function txi(p: Assembler, { form }: SringProgramOptions): void {
  const context = contextOf(form);
  const wanted = form === "v1" ? R7 : R2;
  if (form === "v1") p.alu64.mov(R6, R1);
  p.load(wanted, context, CONTEXT.min_completed_bufs);
  p.alu64.mov(R0, 0);
  p.jump.eq(wanted, 0, "end");
  loadDone(p, context);
  p.jump.ge(R3, wanted, "ready");
  // The slot whose completion interrupts: clear + wanted - 1.
  p.alu32.add(R4, wanted);
  p.alu32.sub(R4, 1);
  arm(p, form, R4);
  loadDone(p, context);
  p.alu64.mov(R0, 0);
  p.jump.lt(R3, wanted, "end");
  p.label("ready").alu64.mov(R0, 1);
  p.label("end").exit();
}

function rxi(p: Assembler, { form }: SringProgramOptions): void {
  const context = contextOf(form);
  const wanted = form === "v1" ? R7 : R2;
  if (form === "v1") p.alu64.mov(R6, R1);
  p.load(wanted, context, CONTEXT.min_completed_bufs);
  loadDone(p, context);
  p.jump.ge(R3, wanted, "ready");
  p.alu64.mov(R5, 1);
  arm(p, form, R5);
  loadDone(p, context);
  p.alu64.mov(R0, 0);
  p.jump.lt(R3, wanted, "end");
  p.label("ready").store(context, INTR, 0);
  p.alu64.mov(R0, 1);
  p.label("end").exit();
}

/**
 * Takes up to `most` slots back, used by the host or not, while the host is stopped. Where `clear` passes
 * `cons` (old clear <= cons < new clear, modulo 2^32), `cons` comes along, so the ring is empty at the end.
 */
function reclaim(p: Assembler, bufs: number, most: number): void {
  p.load(R2, R1, PROD);
  p.load(R3, R1, CLEAR);
  p.store(R1, CONTEXT.oflags, 0);
  p.alu64.mov(R0, 0);
  p.alu32.sub(R2, R3);
  p.jump.eq(R2, 0, "end");
  p.jump.le(R2, most, "counted");
  p.alu64.mov(R2, most);
  p.label("counted").store(R1, CONTEXT.num_bufs, R2);
  p.load(R4, R1, CONS);
  p.alu32.sub(R4, R3);
  p.alu64.mov(R5, R3);
  p.alu32.add(R5, R2);
  p.store(R1, CLEAR, R5);
  p.jump.ge(R4, R2, "behind");
  p.store(R1, CONS, R5);
  p.label("behind");
  p.alu64.mov(R5, R1);
  p.label("next");
  p.alu64.mov(R4, R3);
  slotAddress(p, R4, bufs);
  takeSlot(p, R4, R5, R0);
  p.alu64.add(R3, 1);
  p.alu64.add(R5, BUF.size);
  p.alu64.sub(R2, 1);
  p.jump.gt(R2, 0, "next");
  p.alu64.mov(R0, 1);
  p.label("end").exit();
}

const PROGRAMS = {
  rxp,
  rxc,
  rxi,
  rxr: (p: Assembler, { bufs }: SringProgramOptions) => reclaim(p, bufs, MAX_BUFS),
  txp,
  txc,
  txi,
  txr: (p: Assembler, { bufs }: SringProgramOptions) => reclaim(p, bufs, 1),
};

/**
 * sring's program set for queues of `bufs` buffers.
 * @throws RangeError for an illegal number of buffers.
 */
export function sringPrograms(options: SringProgramOptions): ProgramSet {
  if (!validQueueBufs(options.bufs)) {
    throw new RangeError(`sring: ${options.bufs} buffers: not a power of two in 16..8192`);
  }
  const code = new Map<ProgramId, Uint8Array>();
  for (const [name, write] of Object.entries(PROGRAMS)) {
    const p = new Assembler();
    write(p, options);
    code.set(PROGRAM_IDS[name as keyof typeof PROGRAMS], p.assemble());
  }
  return { form: options.form, code };
}

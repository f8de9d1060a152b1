/**
 * vring_packed's programs. The number of buffers is a power of two and a constant here, so an index wraps by
 * a mask, and the bit that falls out of it flips the wrap bit: there is no branch for it.
 *
 * A slot is published by one exchange of its last word (id and flags): release before, full barrier after.
 */
import {
  BUF,
  BUFS_OFFSET,
  CONTEXT,
  HELPERS,
  MAX_BUFS,
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
  R9,
  type Register,
  shifted,
} from "../../ebpf/assembler.ts";
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
  stateOffset,
} from "./layout.ts";

export interface PackedProgramOptions {
  /** Buffers of the queue: a power of two in 16..8192. */
  readonly bufs: number;
  readonly form: ProgramForm;
}

const BOTH = DESC_AVAIL | DESC_USED;
const inPrivate = (name: keyof typeof PACKED.fields) => shifted(PACKED[name], PRIVATE_OFFSET);
const inSlot = (name: keyof typeof PACKED_DESC.fields) =>
  shifted(PACKED_DESC[name], PRIVATE_OFFSET + DESCRIPTORS_OFFSET);
const inBuffer = (name: keyof typeof BUF.fields) => shifted(BUF[name], BUFS_OFFSET);

/** index (a register, used up; below the number of buffers) becomes context + offset of its entry of 16 bytes. */
function entryAddress(p: Assembler, index: Register): void {
  p.alu64.mul(index, PACKED_DESC.size);
  p.alu64.add(index, R1);
}

/** id (a register, used up; below the number of buffers) becomes the address of its state. */
function stateAddress(p: Assembler, id: Register, bufs: number): void {
  // Of large rings it is farther than a displacement reaches.
  p.alu64.mul(id, PACKED_STATE.size);
  p.alu64.add(id, PRIVATE_OFFSET + stateOffset(bufs));
  p.alu64.add(id, R1);
}

/** index + 1 (a register), wrapped; `carry` is 1 where it did. */
function advance(p: Assembler, index: Register, carry: Register, bufs: number): void {
  p.alu64.add(index, 1);
  p.alu64.mov(carry, index);
  p.alu64.rsh(carry, Math.log2(bufs));
  p.alu64.and(index, bufs - 1);
}

/**
 * Publishes the buffer at R5 in the next slot. An id that is not free means that the driver publishes more
 * than there is: then the program ends with -1. Uses R0, R3, R4, R6..R8.
 */
function publishSlot(p: Assembler, { bufs, form }: PackedProgramOptions, flags: number): void {
  p.load(R3, R1, inPrivate("next_avail_idx"));
  p.load(R7, R1, inPrivate("next_free_id"));
  p.alu64.and(R3, bufs - 1);
  p.alu64.and(R7, bufs - 1);
  p.alu64.mov(R4, R3);
  entryAddress(p, R4);
  p.alu64.mov(R6, R7);
  stateAddress(p, R6, bufs);
  p.load(R8, R6, PACKED_STATE.busy);
  p.alu64.mov(R0, -1);
  p.jump.ne(R8, 0, "end");
  p.store(R6, PACKED_STATE.busy, 1);
  p.load(R0, R5, inBuffer("cookie")).store(R6, PACKED_STATE.cookie, R0);
  p.load(R0, R6, PACKED_STATE.next).store(R1, inPrivate("next_free_id"), R0);
  p.load(R0, R5, inBuffer("paddr")).store(R4, inSlot("addr"), R0);
  p.load(R0, R5, inBuffer("len")).store(R4, inSlot("len"), R0);
  // The word that publishes: flags of the lap that the slot is in.
  p.load(R8, R1, inPrivate("avail_used_flags"));
  p.alu64.mov(R0, R8);
  if (flags !== 0) p.alu64.or(R0, flags);
  p.alu64.lsh(R0, 16);
  p.alu64.or(R7, R0);
  advance(p, R3, R0, bufs);
  p.store(R1, inPrivate("next_avail_idx"), R3);
  p.load(R6, R1, inPrivate("avail_wrap"));
  p.alu64.xor(R6, R0);
  p.store(R1, inPrivate("avail_wrap"), R6);
  p.alu64.mul(R0, BOTH);
  p.alu64.xor(R8, R0);
  p.store(R1, inPrivate("avail_used_flags"), R8);
  if (form === "helperfree") p.atomic.xchg(R4, inSlot("id_flags"), R7);
  else p.store(R4, inSlot("id_flags"), R7);
}

/**
 * After publishing R2 slots: is a kick wanted? Stores oflags, returns 0. In the version 1 form this is where the
 * full barrier is, and R1..R5 are lost to it.
 */
function askKick(p: Assembler, { bufs, form }: PackedProgramOptions): void {
  const context = form === "v1" ? R6 : R1;
  if (form === "v1") {
    p.alu64.mov(R6, R1);
    p.alu64.mov(R9, R2);
    p.call(HELPERS.smp_mb_full);
  } else {
    p.alu64.mov(R9, R2);
  }
  p.load(R2, context, inPrivate("device_event"));
  p.alu64.mov(R0, R2);
  p.alu64.rsh(R0, 16);
  p.alu64.mov(R5, 1);
  p.jump.eq(R0, EVENT_ALWAYS, "asked");
  p.alu64.mov(R5, 0);
  p.jump.ne(R0, EVENT_AT, "asked");
  // Wanted iff u16(new - event - 1) < count, the event a lap back where its wrap bit is not ours.
  p.load(R3, context, inPrivate("next_avail_idx"));
  p.load(R4, context, inPrivate("avail_wrap"));
  p.alu64.mov(R0, R2);
  p.alu64.rsh(R0, 15);
  p.alu64.xor(R0, R4);
  p.alu64.and(R0, 1);
  p.alu64.mul(R0, bufs);
  p.alu64.and(R2, 0x7fff);
  p.alu64.sub(R2, R0);
  p.alu64.sub(R3, R2);
  p.alu64.sub(R3, 1);
  p.alu64.and(R3, 0xffff);
  p.jump.ge(R3, R9, "asked");
  p.alu64.mov(R5, 1);
  p.label("asked").store(context, CONTEXT.oflags, R5);
  p.alu64.mov(R0, 0);
}

function txp(p: Assembler, options: PackedProgramOptions): void {
  p.load(R2, R1, CONTEXT.num_bufs);
  p.alu64.mov(R0, -1);
  p.jump.ne(R2, 1, "end");
  p.alu64.mov(R5, R1);
  publishSlot(p, options, 0);
  askKick(p, options);
  p.label("end").exit();
}

function rxp(p: Assembler, options: PackedProgramOptions): void {
  p.load(R9, R1, CONTEXT.num_bufs);
  p.alu64.mov(R0, -1);
  p.jump.gt(R9, MAX_BUFS, "end");
  p.alu64.mov(R2, 0);
  p.alu64.mov(R5, R1);
  p.jump.eq(R9, 0, "published");
  p.label("next");
  publishSlot(p, options, DESC_WRITE);
  p.alu64.add(R5, BUF.size);
  p.alu64.add(R2, 1);
  p.jump.eq(R2, R9, "published");
  p.jump.lt(R2, MAX_BUFS, "next");
  p.label("published");
  askKick(p, options);
  p.label("end").exit();
}

/**
 * Takes the slot at next_used_idx into the buffer at R5 and moves on. R9 = 0 where the host has used it,
 * DESC_USED where it is still pending, which is only taken where `pending` says so. Jumps to "none" where there
 * is nothing, to "bad" where its id is not outstanding. Uses all registers but R1, R2 and R5.
 */
function takeSlot(p: Assembler, bufs: number, pending: boolean): void {
  p.load(R3, R1, inPrivate("next_used_idx"));
  p.load(R8, R1, inPrivate("used_wrap"));
  p.alu64.and(R8, 1);
  p.alu64.and(R3, bufs - 1);
  p.alu64.mov(R4, R3);
  entryAddress(p, R4);
  p.load(R7, R4, inSlot("id_flags"));
  p.alu64.mov(R9, R7);
  p.alu64.rsh(R9, 16);
  p.alu64.and(R9, BOTH);
  p.alu64.mov(R0, R8);
  p.alu64.mul(R0, BOTH);
  p.alu64.xor(R9, R0);
  if (pending) {
    p.jump.eq(R9, 0, "take");
    p.jump.ne(R9, DESC_USED, "none");
    p.label("take");
  } else {
    p.jump.ne(R9, 0, "none");
    // The slot again, but known only once the flags are: the address dependency.
    p.alu64.xor(R3, R9);
    p.alu64.and(R3, bufs - 1);
    p.alu64.mov(R4, R3);
    entryAddress(p, R4);
  }
  p.alu64.and(R7, 0xffff);
  p.jump.ge(R7, bufs, "bad");
  p.alu64.mov(R6, R7);
  stateAddress(p, R6, bufs);
  p.load(R0, R6, PACKED_STATE.busy);
  p.jump.eq(R0, 0, "bad");
  p.store(R6, PACKED_STATE.busy, 0);
  p.load(R0, R6, PACKED_STATE.cookie).store(R5, inBuffer("cookie"), R0);
  p.load(R0, R4, inSlot("addr")).store(R5, inBuffer("paddr"), R0);
  p.load(R0, R4, inSlot("len")).store(R5, inBuffer("len"), R0);
  p.load(R0, R1, inPrivate("next_free_id")).store(R6, PACKED_STATE.next, R0);
  p.store(R1, inPrivate("next_free_id"), R7);
  advance(p, R3, R0, bufs);
  p.store(R1, inPrivate("next_used_idx"), R3);
  p.alu64.xor(R8, R0);
  p.store(R1, inPrivate("used_wrap"), R8);
}

function collect(p: Assembler, { bufs, form }: PackedProgramOptions, receive: boolean): void {
  p.store(R1, CONTEXT.oflags, 0);
  p.alu64.mov(R5, R1);
  takeSlot(p, bufs, false);
  p.store(R1, CONTEXT.num_bufs, 1);
  if (receive && form === "v1") {
    p.call(HELPERS.rx_pkt_alloc);
    p.jump32.slt(R0, 0, "end");
  }
  p.alu64.mov(R0, 1);
  p.label("end").exit();
  p.label("none").alu64.mov(R0, 0).exit();
  p.label("bad").alu64.mov(R0, -1).exit();
}

/**
 * Takes up to `most` slots back, used by the host or not, while the host is stopped. The host's indices move
 * past those that it had not used, so that the ring is empty at the end.
 */
function reclaim(p: Assembler, { bufs }: PackedProgramOptions, most: number): void {
  p.store(R1, CONTEXT.oflags, 0);
  p.alu64.mov(R5, R1);
  p.alu64.mov(R2, 0);
  p.label("next");
  takeSlot(p, bufs, true);
  p.jump.eq(R9, 0, "moved");
  p.alu64.mov(R0, R3);
  p.alu64.lsh(R0, 16);
  p.alu64.or(R0, R3);
  p.store(R1, inPrivate("host_indices"), R0);
  p.alu64.mov(R0, R8);
  p.alu64.mul(R0, BOTH);
  p.alu64.lsh(R0, 16);
  p.alu64.mul(R8, 0x0101);
  p.alu64.or(R0, R8);
  p.store(R1, inPrivate("host_wraps"), R0);
  p.label("moved");
  p.alu64.add(R5, BUF.size);
  p.alu64.add(R2, 1);
  p.jump.lt(R2, most, "next");
  p.label("none");
  p.alu64.mov(R0, 0);
  p.jump.eq(R2, 0, "end");
  p.store(R1, CONTEXT.num_bufs, R2);
  p.alu64.mov(R0, 1);
  p.label("end").exit();
  p.label("bad").alu64.mov(R0, -1).exit();
}

/** Interrupt at the n-th completion from here, n = min_completed_bufs; 0: never. */
function armAt(p: Assembler, { bufs, form }: PackedProgramOptions): void {
  p.load(R2, R1, CONTEXT.min_completed_bufs);
  p.jump.ne(R2, 0, "arm");
  p.alu64.mov(R0, 0);
  p.store(R1, inPrivate("driver_event"), EVENT_NEVER << 16);
  p.exit();
  p.label("arm").alu64.mov(R0, -1);
  p.jump.gt(R2, bufs, "end");
  p.load(R3, R1, inPrivate("next_used_idx"));
  p.load(R8, R1, inPrivate("used_wrap"));
  p.alu64.and(R3, bufs - 1);
  p.alu64.add(R3, R2);
  p.alu64.sub(R3, 1);
  p.alu64.mov(R0, R3);
  p.alu64.rsh(R0, Math.log2(bufs));
  p.alu64.xor(R8, R0);
  p.alu64.and(R8, 1);
  p.alu64.and(R3, bufs - 1);
  p.alu64.mov(R7, R3);
  p.alu64.mov(R0, R8);
  p.alu64.lsh(R0, 15);
  p.alu64.or(R0, R3);
  p.alu64.or(R0, EVENT_AT << 16);
  p.alu64.mov(R6, R1);
  if (form === "helperfree") p.atomic.xchg(R1, inPrivate("driver_event"), R0);
  else p.store(R1, inPrivate("driver_event"), R0).call(HELPERS.smp_mb_full);
  // Is that one used already?
  p.alu64.mul(R7, PACKED_DESC.size);
  p.alu64.add(R7, R6);
  p.load(R2, R7, inSlot("id_flags"));
  p.alu64.rsh(R2, 16);
  p.alu64.and(R2, BOTH);
  p.alu64.mul(R8, BOTH);
  p.alu64.mov(R0, 1);
  p.jump.eq(R2, R8, "end");
  p.alu64.mov(R0, 0);
  p.label("end").exit();
}

const PROGRAMS = {
  rxp,
  rxc: (p: Assembler, options: PackedProgramOptions) => collect(p, options, true),
  rxi: armAt,
  rxr: (p: Assembler, options: PackedProgramOptions) => reclaim(p, options, MAX_BUFS),
  txp,
  txc: (p: Assembler, options: PackedProgramOptions) => collect(p, options, false),
  txi: armAt,
  txr: (p: Assembler, options: PackedProgramOptions) => reclaim(p, options, 1),
};

/**
 * vring_packed's program set for queues of `bufs` buffers.
 * @throws RangeError for an illegal number of buffers.
 */
export function packedPrograms(options: PackedProgramOptions): ProgramSet {
  if (!validQueueBufs(options.bufs)) {
    throw new RangeError(`vring_packed: ${options.bufs} buffers: not a power of two in 16..8192`);
  }
  const code = new Map<ProgramId, Uint8Array>();
  for (const [name, write] of Object.entries(PROGRAMS)) {
    const p = new Assembler();
    write(p, options);
    code.set(PROGRAM_IDS[name as keyof typeof PROGRAMS], p.assemble());
  }
  return { form: options.form, code };
}

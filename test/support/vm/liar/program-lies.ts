/**
 * Program sets that must be refused: invalid blobs, and sets with one program that
 * the guest kernel's verifier must refuse. Each piece of invalid code comes first
 * in its program, so that nothing hides it.
 */
import { createHash } from "node:crypto";
import {
  BLOB_HASH_OFFSET,
  BLOB_HEADER,
  BLOB_PROGRAM,
  buildBlob,
  CONTEXT,
  MAX_INSTRUCTIONS,
  OPTIONAL_PROGRAMS,
  PROGRAM_IDS,
  PROGRAM_NAMES,
  type ProgramId,
  type ProgramSet,
} from "../../../../src/abi/index.ts";
import type { Random } from "./random.ts";

/** Returns one encoded instruction (RFC 9669, section 3). */
function insn(code: number, registers = 0, offset = 0, imm = 0): Uint8Array {
  const bytes = new Uint8Array(8);
  const view = new DataView(bytes.buffer);
  bytes[0] = code;
  bytes[1] = registers;
  view.setInt16(2, offset, true);
  view.setInt32(4, imm | 0, true);
  return bytes;
}

/** dst in the low half, src in the high half. */
const regs = (dst: number, src = 0): number => dst | (src << 4);
const MOV_IMM = 0xb7;
const MOV_REG = 0xbf;
const ADD_REG = 0x0f;
const ADD_IMM = 0x07;
const JUMP_NE = 0x55;
const LOAD_WORD = 0x61;
const STORE_WORD = 0x62;
const WIDE = 0x18;
const JUMP = 0x05;
const CALL = 0x85;
const EXIT = 0x95;
const ATOMIC = 0xdb;

/** Opcodes that no version of the instruction set has. */
const UNKNOWN = [0xff, 0xf4, 0xf7, 0xe4, 0xf5].map((code) => [insn(code)]);

const BAD_CODE: readonly (readonly Uint8Array[])[] = [
  ...UNKNOWN,
  // Calls: of helpers, of a function of the program, of a kernel function, through a register.
  ...[1, 2, 5, 25, 0x7fffffff, -1].map((helper) => [insn(CALL, 0, 0, helper)]),
  [insn(CALL, regs(0, 1), 0, 0)],
  [insn(CALL, regs(0, 2), 0, 1)],
  [insn(0x8d, regs(2))],
  // Wide loads that stand for maps, kernel symbols, functions of the loading task.
  ...[1, 2, 3, 4, 5, 6, 15].map((kind) => [insn(WIDE, regs(2, kind), 0, 3), insn(0)]),
  // Packet access of classic BPF.
  ...[0x20, 0x28, 0x30, 0x40, 0x48, 0x50].map((code) => [insn(code, regs(0, 2), 0, 0)]),
  // Outside of the context, by offset and by an unbounded index.
  [insn(LOAD_WORD, regs(0, 1), 0x7ff0)],
  [insn(LOAD_WORD, regs(0, 1), -4)],
  [insn(STORE_WORD, regs(1), 0x7ff0, 1)],
  [insn(STORE_WORD, regs(1), -8, 1)],
  [
    insn(LOAD_WORD, regs(2, 1), 16),
    insn(ADD_REG, regs(2, 1)),
    insn(STORE_WORD, regs(2), 0, 0x41414141),
  ],
  // Outside of the stack.
  [insn(STORE_WORD, regs(10), 0, 1)],
  [insn(STORE_WORD, regs(10), -520, 1)],
  // Addresses from numbers.
  [insn(MOV_IMM, regs(2), 0, 0), insn(LOAD_WORD, regs(0, 2))],
  [insn(MOV_IMM, regs(2), 0, -4096), insn(STORE_WORD, regs(2), 0, 1)],
  [insn(0x04, regs(1), 0, 4)],
  // Registers that are uninitialised, read-only, or do not exist.
  [insn(MOV_REG, regs(0, 7))],
  [insn(EXIT)],
  [insn(MOV_IMM, regs(10), 0, 0)],
  [insn(MOV_IMM, regs(15), 0, 0)],
  // Fields that must be zero, and an atomic that does not exist.
  [insn(MOV_IMM, regs(0), 7, 0)],
  [insn(ATOMIC, regs(1, 1), 16, 0x77)],
  // Jumps: endless, out of the program, into the middle of an instruction.
  [insn(JUMP, 0, -1)],
  [insn(JUMP, 0, 0x7ff0)],
  [insn(JUMP, 0, -2)],
  [insn(JUMP, 0, 1), insn(WIDE, regs(2), 0, 0), insn(0)],
];

/** Endless until the kernel's own limit, which is seconds: its verifier accepts it since 6.9. */
const MAY_GOTO = [insn(0xe5, 0, 1), insn(JUMP, 0, -2)];

/** Buffers that no packet has, so that what follows is verified and never runs. */
const NEVER = 0x7fffffff;
/**
 * The verifier follows each of them, which takes an emulated guest 1.5 s, and four times that for
 * twice as many.
 */
const ITERATIONS = 7000;

const SLOW = [
  insn(LOAD_WORD, regs(0, 1), CONTEXT.num_bufs.offset),
  insn(JUMP_NE, regs(0), 3, NEVER),
  insn(MOV_IMM, regs(0), 0, ITERATIONS),
  insn(ADD_IMM, regs(0), 0, -1),
  insn(JUMP_NE, regs(0), -2, 0),
];

const NEEDED = PROGRAM_NAMES.filter((name) => !OPTIONAL_PROGRAMS.includes(name));
/** The driver loads only what it runs: it has a table of its own of what is outstanding. */
const RUN = NEEDED.filter((name) => name !== "rxr" && name !== "txr");

function changed(set: ProgramSet, id: ProgramId, code: Uint8Array | null): ProgramSet {
  const all = new Map(set.code);
  if (code === null) all.delete(id);
  else all.set(id, code);
  return { form: set.form, code: all };
}

/** Returns a set with one program that begins with invalid code, or that runs off its end. */
function badProgram(random: Random, set: ProgramSet): ProgramSet {
  const id = PROGRAM_IDS[random.pick(RUN)];
  const code = set.code.get(id) as Uint8Array;
  if (random.oneIn(BAD_CODE.length)) {
    return changed(set, id, Buffer.concat([code.subarray(0, -8), insn(MOV_IMM)]));
  }
  return changed(set, id, Buffer.concat([...random.pick(BAD_CODE), code]));
}

/** Field of the blob's header or first program → its wrong values. */
const BAD_FIELDS: readonly (readonly [number, readonly number[]])[] = [
  [BLOB_HEADER.magic.offset, [0, 0x4c425643, 0xffffffff]],
  [BLOB_HEADER.length.offset, [0, 47, 48, 0x7fffffff, 0xffffffff]],
  [BLOB_HEADER.generation.offset, [0, 2, 0xffffffff]],
  [BLOB_HEADER.programs.offset, [0, 1, 9, 10, 11, 0x80000000, 0xffffffff]],
  [BLOB_HEADER.size + BLOB_PROGRAM.id.offset, [0, 2, 11, 0x80000001, 0xffffffff]],
  [
    BLOB_HEADER.size + BLOB_PROGRAM.instructions.offset,
    [0, MAX_INSTRUCTIONS, MAX_INSTRUCTIONS + 1, 0x20000000, 0xffffffff],
  ],
];

/** Returns the blob with a correct hash, which a misbehaving host can compute, too. */
function rehashed(blob: Uint8Array): Uint8Array {
  if (blob.length > BLOB_HEADER.size) {
    const hash = createHash("sha256").update(blob.subarray(BLOB_HEADER.size)).digest();
    blob.set(hash, BLOB_HASH_OFFSET);
  }
  return blob;
}

function badBlob(random: Random, set: ProgramSet, generation: number): Uint8Array {
  const blob = buildBlob(set, generation);
  const view = new DataView(blob.buffer);
  const [offset, values] = random.pick(BAD_FIELDS);
  view.setUint32(offset, random.pick(values), true);
  return random.oneIn(4) ? blob : rehashed(blob);
}

/** Returns a truncated blob, with or without the matching length in its header. */
function shortBlob(random: Random, set: ProgramSet, generation: number): Uint8Array {
  const whole = buildBlob(set, generation);
  const end = BLOB_HEADER.size + random.below(whole.length - BLOB_HEADER.size);
  const blob = whole.slice(0, end);
  if (random.oneIn(2)) {
    new DataView(blob.buffer).setUint32(BLOB_HEADER.length.offset, end, true);
  }
  return random.oneIn(4) ? blob : rehashed(blob);
}

/** Returns a program with too many instructions. */
function longProgram(random: Random, set: ProgramSet, generation: number): Uint8Array {
  const code = new Uint8Array((MAX_INSTRUCTIONS + 1) * 8);
  for (let i = 0; i < code.length; i += 8) code.set(insn(MOV_IMM), i);
  code.set(insn(EXIT), code.length - 8);
  return buildBlob(changed(set, PROGRAM_IDS[random.pick(NEEDED)], code), generation);
}

/** Returns a blob with a wrong hash. */
function misnamedBlob(random: Random, set: ProgramSet, generation: number): Uint8Array {
  const blob = buildBlob(set, generation);
  blob[BLOB_HASH_OFFSET + random.below(32)] ^= 1 << random.below(8);
  return blob;
}

/** Returns a blob with a program that runs long, and that the kernel's verifier may accept. */
export function longBlob(set: ProgramSet, generation: number): Uint8Array {
  const id = PROGRAM_IDS.rxc;
  const code = Buffer.concat([...MAY_GOTO, set.code.get(id) as Uint8Array]);
  return buildBlob(changed(set, id, code), generation);
}

/** Returns a blob with a program that is harmless, and that takes long to verify. */
export function slowBlob(set: ProgramSet, generation: number): Uint8Array {
  const id = PROGRAM_IDS.rxc;
  const code = Buffer.concat([...SLOW, set.code.get(id) as Uint8Array]);
  return buildBlob(changed(set, id, code), generation);
}

/** Returns a blob that a driver must refuse. */
export function refusableBlob(random: Random, set: ProgramSet, generation: number): Uint8Array {
  switch (random.below(16)) {
    case 0:
    case 1:
      return badBlob(random, set, generation);
    case 2:
      return shortBlob(random, set, generation);
    case 3:
      return random.oneIn(2)
        ? longProgram(random, set, generation)
        : buildBlob(changed(set, PROGRAM_IDS[random.pick(NEEDED)], null), generation);
    case 4:
      return misnamedBlob(random, set, generation);
    default:
      return buildBlob(badProgram(random, set), generation);
  }
}

/**
 * Returns a blob with a few flipped bits, mostly with a matching hash: it is refused, or as
 * harmless as other accepted programs.
 */
export function flippedBlob(random: Random, set: ProgramSet, generation: number): Uint8Array {
  const blob = buildBlob(set, generation);
  const from = BLOB_HEADER.size + BLOB_PROGRAM.size;
  for (let n = 1 + random.below(3); n > 0; n--) {
    blob[from + random.below(blob.length - from)] ^= 1 << random.below(8);
  }
  return random.oneIn(8) ? blob : rehashed(blob);
}

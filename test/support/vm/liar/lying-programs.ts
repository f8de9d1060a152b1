/**
 * Programs that the verifier accepts, because they access only their context, and that lie: their
 * results are random numbers or one wrong constant.
 */
import {
  BUF,
  BUFS_OFFSET,
  CONTEXT,
  OFLAG_KICK_NEEDED,
  OFLAG_RESCHED_NEEDED,
  PRIVATE_OFFSET,
  PROGRAM_IDS,
  type ProgramId,
  type ProgramName,
  type ProgramSet,
} from "../../../../src/abi/index.ts";
import { Assembler, at, R0, R1, R2, R3, shifted } from "../../../../src/ebpf/assembler.ts";
import type { Random } from "./random.ts";

/** A private word that every device leaves to its programs: the generator's state. */
const STATE = at(PRIVATE_OFFSET + 8, 4);
/** Buffers that a lying collector fills. */
const BUFFERS = 4;

/** Emits R2 = the next random number (generator of Numerical Recipes). */
function next(p: Assembler): void {
  p.load(R2, R1, STATE).alu32.mul(R2, 1664525).alu32.add(R2, 1013904223).store(R1, STATE, R2);
}

/** rxc, txc: report a packet of unknown buffers. */
function collector(random: Random): Uint8Array {
  const p = new Assembler();
  const bufs = random.pick([0, 1, 1, 1, 2, 4, 63, 64, 65, -1, null]);
  const mask = random.pick([0, 15, 255, 511, -1]);
  const lengths = random.pick([0, 63, 2047, 4095, 0x7fffffff, -1]);
  for (let i = 0; i < BUFFERS; i++) {
    next(p);
    const place = BUFS_OFFSET + i * BUF.size;
    p.alu64
      .mov(R3, R2)
      .alu64.rsh(R3, 8)
      .alu64.and(R3, mask)
      .store(R1, shifted(BUF.cookie, place), R3);
    p.alu64.rsh(R2, 4).alu64.and(R2, lengths).store(R1, shifted(BUF.len, place), R2);
  }
  next(p);
  p.alu64.rsh(R2, 9);
  if (bufs === null) p.alu64.mov(R3, R2).alu64.and(R3, 127).store(R1, CONTEXT.num_bufs, R3);
  else p.store(R1, CONTEXT.num_bufs, bufs);
  p.store(R1, CONTEXT.oflags, random.pick([0, OFLAG_RESCHED_NEEDED, -1]));
  p.alu64.mov(R0, random.pick([0, 1, 1, 1, 1, 2, -1, 0x7fffffff]));
  if (random.oneIn(3)) p.alu64.mov(R0, R2).alu64.and(R0, 1);
  return p.exit().assemble();
}

/** rxi, txi: report work, always or at random. */
function promiser(random: Random): Uint8Array {
  const p = new Assembler();
  next(p);
  p.alu64.mov(R0, random.pick([1, 1, -1, 0x7fffffff, 0]));
  if (random.oneIn(3)) p.alu64.mov(R0, R2).alu64.rsh(R0, 9).alu64.and(R0, 1);
  return p.exit().assemble();
}

/** rxp, txp: publish nothing, and report success or failure. */
function publisher(random: Random): Uint8Array {
  const p = new Assembler();
  p.store(R1, CONTEXT.oflags, random.pick([0, OFLAG_KICK_NEEDED, -1]));
  p.alu64.mov(R0, random.pick([0, 0, -1, -22, 1, 0x7fffffff]));
  return p.exit().assemble();
}

const LIARS: Readonly<Record<string, (random: Random) => Uint8Array>> = {
  rxp: publisher,
  rxc: collector,
  rxi: promiser,
  txp: publisher,
  txc: collector,
  txi: promiser,
};

/** Returns the set with one to three programs replaced by lying ones. */
export function lyingSet(random: Random, set: ProgramSet): ProgramSet {
  const code = new Map<ProgramId, Uint8Array>(set.code);
  for (let n = 1 + random.below(3); n > 0; n--) {
    const name = random.pick(Object.keys(LIARS)) as ProgramName;
    code.set(PROGRAM_IDS[name], LIARS[name](random));
  }
  return { form: set.form, code };
}

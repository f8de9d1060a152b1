/**
 * Random short loops that walk through memory, up to its ends and
 * beyond: bounds checks that the JIT hoists.
 */
import {
  Assembler,
  at,
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
} from "../../../src/ebpf/assembler.ts";
import type { Region } from "../../../src/ebpf/memory.ts";
import type { Random } from "./random.ts";

export const LOOP_BYTES = 600;
/** Addresses of regions: low, across a 4 GiB boundary, and above one. */
const BASES = [0x1_0000_0000, 0x10_0000, 0x2_ffff_ff00, 0x7fff_fe80, 0x5_1234_5678];

export interface LoopProgram {
  readonly code: Uint8Array;
  /** Regions without their bytes. R1 is the address of the first one. */
  readonly regions: readonly Omit<Region, "bytes">[];
}

/**
 * R1 and R6: the regions; R2 a 64-bit index, R3 a pointer, R4 a step, R5 a 32-bit index, R7
 * scratch, R8 the remaining iterations, R9 and R0 sums.
 */
export function generateLoop(random: Random): LoopProgram {
  const first = random.pick(BASES);
  const second = first + 0x2000 * (1 + random.below(3));
  const regions = [
    { name: "first", base: first },
    { name: "second", base: second, writable: !random.once(3) },
  ];
  const writer = new LoopWriter(random, second);
  return { code: writer.write(), regions };
}

const SIZES = [1, 2, 4, 8] as const;

class LoopWriter {
  readonly #p = new Assembler();
  readonly #random: Random;
  readonly #second: number;
  /** True if R5 only grows. */
  #upward = false;

  constructor(random: Random, second: number) {
    this.#random = random;
    this.#second = second;
  }

  write(): Uint8Array {
    const p = this.#p;
    p.load64(R6, BigInt(this.#second));
    const loops = 1 + this.#random.below(2);
    for (let n = 0; n < loops; n++) {
      this.#start();
      if (this.#random.once(3)) this.#sum(n);
      else this.#walk(n);
    }
    return p.alu64.add(R0, R9).alu64.add(R0, R2).alu64.add(R0, R3).exit().assemble();
  }

  #start(): void {
    const random = this.#random;
    const p = this.#p.alu64
      .mov(R2, this.#distance())
      .alu32.mov(R5, random.once(8) ? -20 : random.below(300));
    p.alu64.mov(R3, random.once(2) ? R1 : R6).alu64.add(R3, this.#distance());
    p.alu64.mov(R8, 1 + random.below(random.once(3) ? 300 : 40));
    if (random.once(8)) p.load64(R4, random.wide());
    else p.alu64.mov(R4, random.below(24) - 4);
    // A step known only at run time.
    if (random.once(2)) p.load(R7, R1, at(0, 1)).alu64.and(R7, 15).alu64.add(R4, R7);
  }

  /** Returns a distance, mostly within the region. */
  #distance(): number {
    const random = this.#random;
    return random.once(10) ? random.immediate() : random.below(LOOP_BYTES) - 20;
  }

  #walk(n: number): void {
    const random = this.#random;
    const p = this.#p.label(`head${n}`);
    this.#upward = random.once(3);
    const count = 1 + random.below(4);
    for (let i = 0; i < count; i++)
      random.pick([this.#access, this.#access, this.#step]).call(this);
    p.alu64.sub(R8, 1);
    // Self loops, and loops of two blocks.
    if (random.once(2)) {
      this.#other(n);
      p.jump.ne(R8, 0, `head${n}`);
    } else if (this.#upward) {
      p.alu32.add(R5, 1 + random.below(16));
      p.jump.lt(R5, random.below(700), `head${n}`);
    } else {
      p.jump.eq(R8, 0, `end${n}`);
      this.#step();
      p.goto(`head${n}`);
    }
    p.label(`end${n}`);
  }

  /** Sometimes emits a second loop exit. */
  #other(n: number): void {
    const random = this.#random;
    if (random.once(5)) this.#p.jump.gt(R2, random.below(700), `end${n}`);
    else if (random.once(3)) this.#p.jump.gt(R5, random.below(700), `end${n}`);
  }

  /**
   * Emits an address from a pointer, or from a region and an index, and a load or a store at it.
   */
  #access(): void {
    const random = this.#random;
    const p = this.#p;
    const base = random.pick([R3, R7, R7]);
    if (base === R7) {
      p.alu64.mov(R7, random.once(4) ? R5 : R2);
      const adder = random.once(4) ? p.alu32 : p.alu64;
      const scale = random.below(6);
      if (scale === 0) adder.lsh(R7, random.below(3));
      else if (scale === 1) adder.mul(R7, random.below(5));
      p.alu64.add(R7, random.pick([R1, R1, R3, R6]));
      if (random.once(4)) p.alu64.add(R7, random.below(64));
    }
    const field = at(random.below(40) - 16, random.pick(SIZES));
    const kind = random.below(4);
    if (kind === 0) p.store(base, field, R8);
    else if (kind === 1) p.store(base, field, random.immediate());
    else {
      const signed = kind === 2 && field.width < 8;
      if (signed) p.loadSigned(R7, base, field);
      else p.load(R7, base, field);
      random
        .pick([p.alu64, p.alu32])
        [random.pick(["add", "xor"] as const)](random.pick([R0, R9]), R7);
    }
  }

  #step(): void {
    const random = this.#random;
    const p = this.#p;
    const by = random.pick([1, 2, 4, 8, 12, -1, -4, random.below(40)]);
    const what = random.below(7);
    // In loops that end by R5 the induction variable must not be decremented.
    const small = this.#upward ? Math.abs(by) : by;
    if (what === 0) p.alu64.add(R2, R4);
    else if (what === 1) p.alu64.add(R3, R4);
    else if (what === 2) p.alu32.add(R5, small);
    else if (what === 3) p.alu64.sub(R2, by);
    else if (what === 4) p.alu64.add(R4, random.below(3));
    else p.alu64.add(random.pick([R2, R3]), by);
  }

  /** Emits a sum of consecutive numbers that stops at a number. */
  #sum(n: number): void {
    const random = this.#random;
    const p = this.#p;
    const size = random.pick(SIZES);
    const step = random.once(5) ? random.pick([1, 4, 16, -size]) : size;
    const from = random.below(100);
    const to = from + step * (1 + random.below(random.once(3) ? 40 : 400 / size));
    p.alu64.mov(R2, from).label(`head${n}`);
    const loads = random.once(3) ? 2 : 1;
    for (let load = 0; load < loads; load++) this.#term(size, load === 1);
    if (random.once(6)) p.jump.eq(R7, random.below(256), `end${n}`);
    p.alu64.add(R2, step);
    if (random.once(2)) p.jump.ne(R2, to, `head${n}`);
    else {
      const leave = step > 0 ? random.pick(["eq", "ge", "gt", "sge"] as const) : "eq";
      p.jump[leave](R2, to, `end${n}`);
      // Sometimes emits more instructions between the loop's exit and its back edge.
      if (random.once(6)) p.alu64.add(R9, random.pick([R4, R7, R8]));
      p.goto(`head${n}`);
    }
    p.label(`end${n}`);
  }

  /** Emits a load of a number, an operation on it, and an addition. */
  #term(size: (typeof SIZES)[number], second: boolean): void {
    const random = this.#random;
    const p = this.#p.alu64.mov(R7, random.pick([R1, R6])).alu64.add(R7, R2);
    const field = at(random.once(3) ? random.below(20) : 0, size);
    const other = second ? R3 : R7;
    p.load(other, R7, field);
    for (let n = random.below(4); n > 0; n--) {
      const alu = random.once(3) ? p.alu32 : p.alu64;
      const what = random.below(5);
      if (what === 0) alu[random.pick(["lsh", "rsh"] as const)](other, random.below(40));
      else if (what === 1) alu[random.pick(OPERATIONS)](other, random.immediate());
      else if (what === 2) alu[random.pick(OPERATIONS)](other, random.pick([R4, R4, R8, R2]));
      else if (what === 3) alu.mov(R5, other).alu64.add(other, R5);
      else alu.mul(other, random.below(4));
    }
    const adder = random.once(3) ? p.alu32 : p.alu64;
    adder[random.pick(["add", "xor", "or", "and"] as const)](random.pick([R0, R9]), other);
  }
}

const OPERATIONS = ["add", "sub", "and", "or", "xor", "mov"] as const;

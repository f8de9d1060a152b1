/** Straight-line pieces of random programs, and the bound before an index. */
import { ALU_OPS, ATOMIC_OPS, CLASS, JUMP_OPS } from "../../../src/ebpf/opcode.ts";
import type { Random } from "./random.ts";
import {
  ATOMIC,
  addImm,
  EXIT,
  encodeSlots,
  FP,
  type FunctionBody,
  load,
  mov,
  movImm,
  REGISTER,
  SIZE_CODE,
  SIZES,
  type Slot,
  slot,
  store,
  storeImm,
} from "./slots.ts";

/** Size of the programs' context in bytes. */
export const STRUCTURED_CONTEXT = 256;

export type Accepts = (code: Uint8Array) => boolean;

/** The generator's belief about a register. Wrong pieces are not accepted, and removed. */
export type Kind = "unset" | "number" | "context" | "stack";

/** Insertion point for slots, within a whole program. */
export interface Site {
  slots: Slot[];
  readonly kinds: Kind[];
  /** Stack slots (from r10 downwards) that may have been written. */
  readonly written: Set<number>;
  /** Registers that must not be written: counters of enclosing loops. */
  readonly kept: ReadonlySet<number>;
  readonly depth: number;
  readonly calls: number;
  whole(slots: readonly Slot[]): FunctionBody;
}

const ALU_CODES = Object.entries(ALU_OPS).filter(([name]) => name !== "mov");
const JUMP_CODES = Object.values(JUMP_OPS);
const ATOMICS = Object.values(ATOMIC_OPS);
const SMALL = [0, 1, 2, 3, 4, 7, 8, 15, 16, 31, 32, 63, 64, 127, 128, 255, 256];

/** Adds pieces to a program, and removes those that `accepts` refuses. */
export class Pieces {
  protected readonly random: Random;
  protected readonly accepts: Accepts;
  /** Number of pieces tried; below: of those kept. */
  tried = 0;
  kept = 0;
  /** Called with each refused program. */
  refused: ((code: Uint8Array) => void) | undefined;

  constructor(random: Random, accepts: Accepts) {
    this.random = random;
    this.accepts = accepts;
  }

  protected add(site: Site, slots: readonly Slot[], then?: () => void): boolean {
    this.tried++;
    const code = encodeSlots(site.whole([...site.slots, ...slots]));
    if (!this.accepts(code)) {
      this.refused?.(code);
      return false;
    }
    this.kept++;
    site.slots.push(...slots);
    then?.();
    return true;
  }

  protected set(site: Site, register: number, kind: Kind): void {
    site.kinds[register] = kind;
  }

  /** Returns a register believed to hold this type, else any. */
  protected holding(site: Site, kind: Kind): number {
    const those = site.kinds.flatMap((k, n) => (k === kind ? [n] : []));
    return those.length > 0 ? this.random.pick(those) : this.random.below(11);
  }

  protected target(site: Site): number {
    const free = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9].filter((n) => !site.kept.has(n));
    return this.random.pick(free);
  }

  protected imm(): number {
    const random = this.random;
    switch (random.below(8)) {
      case 0:
        return random.immediate();
      case 1:
        return -random.pick(SMALL);
      case 2:
        return random.below(STRUCTURED_CONTEXT + 16) - 8;
      case 3:
        return random.pick([-8, -16, -64, -32, -1, 240, 0xff00, 0x7fffffff, -0x80000000]);
      default:
        return random.pick(SMALL);
    }
  }

  /** Adds a number: from the context, an immediate, 64 bits. */
  protected number(site: Site): void {
    const random = this.random;
    const dst = this.target(site);
    const then = () => this.set(site, dst, "number");
    const size = random.pick(SIZES);
    if (random.once(5)) {
      const wide = [slot(0x18, dst, 0, 0, this.imm()), slot(0, 0, 0, 0, this.imm())];
      this.add(site, random.once(3) ? wide : [movImm(dst, this.imm())], then);
      return;
    }
    const off = size * random.below(8);
    const from = this.holding(site, "context");
    this.add(site, [load(size, dst, from, off, size < 8 && random.once(3))], then);
  }

  protected aluSlot(dst: number, src: number): Slot {
    const random = this.random;
    const [name, { code, offset }] = random.pick(ALU_CODES);
    const wide = random.once(3) ? CLASS.ALU : CLASS.ALU64;
    if (random.once(3)) return slot(code | REGISTER | wide, dst, src, offset);
    const shifts = /sh$/.test(name);
    const imm = shifts ? random.below(wide === CLASS.ALU ? 32 : 64) : this.imm();
    return slot(code | wide, dst, 0, offset, imm);
  }

  protected alu(site: Site): void {
    const random = this.random;
    const dst = this.holding(site, "number");
    if (site.kept.has(dst)) return;
    const then = () => this.set(site, dst, "number");
    const unary = random.below(10);
    if (unary === 0) this.add(site, [slot(random.once(2) ? 0x87 : 0x84, dst)], then);
    else if (unary === 1) {
      const [code, from] = random.pick([
        ...([8, 16, 32] as const).map((n) => [0xbf, n] as const),
        ...([8, 16] as const).map((n) => [0xbc, n] as const),
      ]);
      this.add(site, [slot(code, dst, this.holding(site, "number"), from)], then);
    } else if (unary === 2) {
      const code = random.pick([0xd4, 0xdc, 0xd7]);
      this.add(site, [slot(code, dst, 0, 0, random.pick([16, 32, 64]))], then);
    } else this.add(site, [this.aluSlot(dst, this.holding(site, "number"))], then);
  }

  /** Bounds a number for use as an index: a mask, a shift, a remainder. */
  protected bound(site: Site): void {
    const random = this.random;
    const dst = this.holding(site, "number");
    if (site.kept.has(dst)) return;
    const mask = random.pick([1, 3, 7, 8, 15, 24, 31, 63, 64, 120, 127, 255]);
    const wide = random.once(3) ? 0x54 : 0x57;
    const slots = random.once(4)
      ? [slot(0x67, dst, 0, 0, 56), slot(random.once(2) ? 0xc7 : 0x77, dst, 0, 0, 56)]
      : [slot(wide, dst, 0, 0, mask)];
    this.add(site, slots);
  }

  protected jump(site: Site, off: number): Slot {
    const random = this.random;
    const dst = this.holding(site, random.once(12) ? "context" : "number");
    const op = random.pick(JUMP_CODES) | (random.once(2) ? CLASS.JMP32 : CLASS.JMP);
    if (random.once(3)) return slot(op | REGISTER, dst, this.holding(site, "number"), off);
    return slot(op, dst, 0, off, this.imm());
  }

  /** Adds an address, moved by a constant. */
  protected address(site: Site): void {
    const random = this.random;
    const kind = random.once(2) ? "context" : "stack";
    const from = kind === "stack" && random.once(2) ? FP : this.holding(site, kind);
    const dst = this.target(site);
    const by = kind === "stack" ? -8 * random.below(20) : random.below(STRUCTURED_CONTEXT);
    const slots = [mov(dst, from)];
    if (random.once(4)) slots.push(movImm(0, by), slot(random.once(3) ? 0x1f : 0x0f, dst, 0));
    else slots.push(random.once(3) ? slot(0x17, dst, 0, 0, this.imm()) : addImm(dst, by));
    this.add(site, slots, () => this.set(site, dst, kind));
  }

  /**
   * Adds an address plus or minus a number, optionally another constant, and an access through it.
   */
  protected indexed(site: Site): void {
    const random = this.random;
    const kind = random.once(3) ? "stack" : "context";
    const from = kind === "stack" && random.once(2) ? FP : this.holding(site, kind);
    const dst = this.target(site);
    const index = this.holding(site, "number");
    const slots = [mov(dst, from)];
    const constant = () => {
      const by = kind === "stack" ? -8 * random.below(32) : this.imm();
      const code = random.pick([0x07, 0x07, 0x07, 0x17]);
      slots.push(slot(code, dst, 0, 0, code === 0x17 ? -by : by));
    };
    if (random.once(2)) constant();
    if (random.once(4)) slots.splice(0, slots.length, mov(dst, index), slot(0x0f, dst, from));
    else slots.push(slot(random.once(5) ? 0x1f : 0x0f, dst, index));
    if (random.once(2)) constant();
    slots.push(this.through(site, kind, dst));
    const last = slots.at(-1)!;
    const loads = (last.code & 7) === CLASS.LDX;
    this.add(site, slots, () => {
      this.set(site, dst, kind);
      if (loads) this.set(site, last.dst, "number");
    });
  }

  protected offset(kind: Kind, size: number): number {
    const random = this.random;
    if (random.once(3)) return 0;
    const near = random.below(12) * (random.once(4) ? 1 : size);
    if (kind === "stack") return -near;
    if (random.once(5)) return -near;
    return random.once(4) ? STRUCTURED_CONTEXT - near : near;
  }

  protected through(site: Site, kind: Kind, base: number): Slot {
    const random = this.random;
    const size = random.pick(SIZES);
    const off = this.offset(kind, size);
    switch (random.below(4)) {
      case 0:
        return store(size, base, this.holding(site, "number"), off);
      case 1:
        return storeImm(size, base, off, this.imm());
      default:
        return load(size, this.target(site), base, off, size < 8 && random.once(3));
    }
  }

  protected access(site: Site): void {
    const kind = this.random.once(2) ? "context" : "stack";
    const one = this.through(site, kind, this.holding(site, kind));
    const loads = (one.code & 7) === CLASS.LDX;
    this.add(site, [one], () => {
      if (loads) this.set(site, one.dst, "number");
    });
  }

  protected spill(site: Site): void {
    const random = this.random;
    const size = random.once(2) ? 8 : random.pick(SIZES);
    const n = 1 + random.below(6);
    const off = -8 * n + (random.once(4) ? size * random.below(8 / size) : 0);
    const one = random.once(4)
      ? storeImm(size, FP, off, this.imm())
      : store(size, FP, this.holding(site, random.once(5) ? "context" : "number"), off);
    this.add(site, [one], () => site.written.add(n));
  }

  protected fill(site: Site): void {
    const random = this.random;
    if (site.written.size === 0) return;
    const size = random.once(2) ? 8 : random.pick(SIZES);
    const n = random.pick([...site.written]);
    const off = -8 * n + (random.once(4) ? size * random.below(8 / size) : 0);
    const dst = this.target(site);
    const one = load(size, dst, FP, off, size < 8 && random.once(3));
    this.add(site, [one], () => this.set(site, dst, "number"));
  }

  protected atomic(site: Site): void {
    const random = this.random;
    const size = random.once(2) ? 8 : 4;
    const kind = random.once(2) ? "context" : "stack";
    const n = 1 + random.below(6);
    const base = kind === "stack" && random.once(2) ? FP : this.holding(site, kind);
    const off = base === FP ? -8 * n : size * random.below(8) - (kind === "stack" ? 64 : 0);
    const src = this.holding(site, "number");
    const code = ATOMIC | SIZE_CODE[size] | CLASS.STX;
    const slots = [slot(code, base, src, off, random.pick(ATOMICS))];
    if (kind === "stack" && random.once(2)) slots.unshift(storeImm(8, FP, -8 * n, this.imm()));
    // A variable offset into the stack.
    if (kind === "stack" && random.once(4)) {
      const dst = this.target(site);
      const index = this.holding(site, "number");
      slots.splice(0, slots.length, storeImm(8, FP, -8, 0), storeImm(8, FP, -16, 0));
      slots.push(mov(dst, index), slot(0x57, dst, 0, 0, 8), slot(0x0f, dst, FP));
      slots.push(slot(code, dst, src, -16, random.pick(ATOMICS)));
    }
    this.add(site, slots);
  }

  /** Adds arbitrary code after a comparison that may be decided. */
  protected dead(site: Site): void {
    const random = this.random;
    const register = this.holding(site, "number");
    const body: Slot[] = [];
    for (let n = 1 + random.below(3); n > 0; n--) {
      const wild = [
        load(random.pick(SIZES), this.target(site), this.holding(site, "number"), 0),
        load(8, this.target(site), FP, 8),
        load(1, this.target(site), this.holding(site, "context"), -8),
        mov(this.target(site), this.holding(site, "unset")),
        this.aluSlot(this.target(site), this.holding(site, "context")),
      ];
      body.push(random.pick(wild));
    }
    const first = this.jump(site, body.length);
    const second = { ...this.jump(site, body.length), dst: register };
    const between = [second, ...body];
    const out = [slot(first.code, register, first.src, 2, first.imm), movImm(0, 0), EXIT];
    this.add(site, random.once(2) ? [...out, ...between] : [{ ...second }, ...body]);
  }

  /** Adds copies of 64 and 32 bits: links between registers. */
  protected move(site: Site): void {
    const random = this.random;
    const kind = random.once(5) ? "context" : "number";
    const from = this.holding(site, kind);
    const dst = this.target(site);
    const code = random.once(3) ? 0xbc : 0xbf;
    const copies = [slot(code, dst, from)];
    if (random.once(3)) copies.push(addImm(dst, this.imm()));
    this.add(site, copies, () => this.set(site, dst, kind));
  }

  /** Adds comparisons and differences of addresses. */
  protected addresses(site: Site): void {
    const random = this.random;
    const kind = random.once(2) ? "context" : "stack";
    const a = this.holding(site, kind);
    const b = this.holding(site, kind);
    const dst = this.target(site);
    if (random.once(2)) {
      const slots = [mov(dst, a), slot(0x1f, dst, b)];
      this.add(site, slots, () => this.set(site, dst, "number"));
    } else
      this.add(site, [slot(random.pick([0x1d, 0x2d, 0x5d, 0xad]), a, b, 2), movImm(0, 0), EXIT]);
  }

  /** Adds a number used at once as an index, after a comparison that bounds it in some way. */
  protected lone(site: Site): void {
    const random = this.random;
    const n = this.target(site);
    const base = this.target(site);
    if (n === base) return;
    const size = random.pick(SIZES);
    const from = this.holding(site, "context");
    const slots = [load(size, n, from, 8 * random.below(8), size < 8 && random.once(2))];
    for (let k = random.below(3); k > 0; k--) slots.push(this.aluSlot(n, n));
    for (let k = 1 + random.below(3); k > 0; k--) {
      const jump = this.jump(site, 2);
      slots.push({ ...jump, dst: n }, movImm(0, 0), EXIT);
      if (random.once(3)) slots.push(this.aluSlot(n, n));
    }
    slots.push(mov(base, from));
    if (random.once(3)) slots.push(addImm(base, this.imm()));
    slots.push(slot(random.once(5) ? 0x1f : 0x0f, base, n));
    if (random.once(3)) slots.push(addImm(base, this.imm()));
    slots.push(load(random.pick(SIZES), n, base, this.offset("context", 1)));
    this.add(site, slots, () => {
      this.set(site, n, "number");
      this.set(site, base, "context");
    });
  }
}

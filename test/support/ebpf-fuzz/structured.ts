/**
 * Random programs for verifiers. They grow piece by piece, and a piece stays only if `accepts`
 * still accepts the whole program. So they reach the limits of the verifier in every direction, and
 * most of their code matters: addresses with constants and numbers of both signs, all comparisons,
 * spills and reloads, atomics, bounded loops, dead code, calls and chains of calls.
 */

import { type Kind, Pieces, type Site } from "./pieces.ts";
import {
  addImm,
  CALL,
  EXIT,
  encodeSlots,
  FP,
  type FunctionBody,
  GOTO,
  mov,
  movImm,
  type Slot,
  slot,
  storeImm,
} from "./slots.ts";

export class StructuredGenerator extends Pieces {
  program(): Uint8Array {
    const random = this.random;
    const kinds = new Array<Kind>(11).fill("unset");
    kinds[1] = "context";
    kinds[FP] = "stack";
    const site: Site = {
      slots: [],
      kinds,
      written: new Set(),
      kept: new Set(),
      depth: 0,
      calls: 0,
      whole: (slots) => ({ slots: [...slots, movImm(0, 0), EXIT] }),
    };
    this.add(site, [mov(6, 1)], () => this.set(site, 6, "context"));
    for (let n = 0; n < 3; n++) this.piece(site, 0);
    this.grow(site, 4 + random.below(14));
    return encodeSlots(site.whole(site.slots));
  }

  protected grow(site: Site, pieces: number): void {
    for (let n = 0; n < pieces; n++) this.piece(site, this.random.below(26));
  }

  protected piece(site: Site, kind: number): void {
    switch (kind) {
      case 0:
      case 1:
        return this.number(site);
      case 2:
      case 3:
      case 4:
        return this.alu(site);
      case 5:
        return this.bound(site);
      case 6:
      case 7:
      case 8:
        return this.branch(site);
      case 9:
      case 10:
        return this.address(site);
      case 11:
      case 12:
      case 13:
        return this.indexed(site);
      case 14:
        return this.access(site);
      case 15:
      case 16:
        return this.spill(site);
      case 17:
      case 18:
        return this.fill(site);
      case 19:
        return this.atomic(site);
      case 20:
        return this.loop(site);
      case 21:
        return this.call(site);
      case 22:
        return this.dead(site);
      case 23:
        return this.move(site);
      case 24:
        return this.addresses(site);
      default:
        return this.lone(site);
    }
  }

  /** Adds a comparison: around a body, around an exit, or with two bodies. */
  protected branch(site: Site): void {
    const random = this.random;
    if (random.once(3)) {
      this.add(site, [this.jump(site, 2), movImm(0, 0), EXIT]);
      return;
    }
    const jump = this.jump(site, 0);
    const otherwise = random.once(3) ? [this.aluSlot(this.holding(site, "number"), 0)] : [];
    const around = (body: readonly Slot[]): Slot[] => {
      if (otherwise.length === 0) return [{ ...jump, off: body.length }, ...body];
      const over = slot(GOTO, 0, 0, otherwise.length);
      return [{ ...jump, off: body.length + 1 }, ...body, over, ...otherwise];
    };
    this.nest(site, around, 1 + random.below(4), site.kept);
  }

  /** Grows a body inside the code that `around` adds. */
  protected nest(
    site: Site,
    around: (body: readonly Slot[]) => Slot[],
    pieces: number,
    kept: ReadonlySet<number>,
  ): void {
    if (site.depth > 2) return;
    const inner: Site = {
      ...site,
      slots: [],
      kinds: site.kinds.slice(),
      written: new Set(site.written),
      kept,
      depth: site.depth + 1,
      whole: (slots) => site.whole([...site.slots, ...around(slots)]),
    };
    if (!this.accepts(encodeSlots(inner.whole([])))) return;
    this.grow(inner, pieces);
    this.add(site, around(inner.slots), () => {
      site.kinds.forEach((kind, n) => {
        if (kind !== inner.kinds[n]) site.kinds[n] = "unset";
      });
    });
  }

  protected loop(site: Site): void {
    const random = this.random;
    const counter = random.pick([6, 7, 8, 9, 2, 3]);
    if (site.kept.has(counter)) return;
    const rounds = 1 + random.below(6);
    const ends = random.pick([0xa5, 0x55, 0xc5, 0xa6, 0x56, 0xc6]);
    const around = (body: readonly Slot[]): Slot[] => [
      movImm(counter, 0),
      ...body,
      addImm(counter, 1),
      slot(ends, counter, 0, -(body.length + 2), rounds),
    ];
    const before = site.kinds[counter]!;
    site.kinds[counter] = "number";
    this.nest(site, around, 1 + random.below(4), new Set([...site.kept, counter]));
    if (before === "unset") site.kinds[counter] = "unset";
  }

  /** Adds a call and grows the function's body. */
  protected call(site: Site): void {
    const random = this.random;
    if (site.calls > 2 || site.depth > 2) return;
    if (random.once(6)) return this.chain(site, site);
    const third = random.once(2);
    const args = [mov(1, this.holding(site, "context")), mov(2, this.holding(site, "number"))];
    if (third) args.push(mov(3, FP), addImm(3, -8 * random.below(8)));
    const kinds = new Array<Kind>(11).fill("unset");
    kinds[1] = "context";
    kinds[2] = "number";
    if (third) kinds[3] = "stack";
    kinds[FP] = "stack";
    const result = this.random.once(6) ? [mov(0, 3)] : [movImm(0, this.imm())];
    const inner: Site = {
      slots: [],
      kinds,
      written: new Set(),
      kept: new Set(),
      depth: 1,
      calls: site.calls + 1,
      whole: (slots) => {
        const body = { slots: [...slots, ...result, EXIT] };
        return site.whole([...site.slots, ...args, slot(CALL, 0, 1, 0, 0, body)]);
      },
    };
    if (!this.accepts(encodeSlots(inner.whole([])))) return;
    this.grow(inner, 1 + random.below(5));
    const end = random.once(2) ? [mov(0, this.holding(inner, "number"))] : result;
    const body = { slots: [...inner.slots, ...end, EXIT] };
    this.add(site, [...args, slot(CALL, 0, 1, 0, 0, body)], () => {
      for (let n = 1; n <= 5; n++) site.kinds[n] = "unset";
      this.set(site, 0, "number");
    });
  }

  /** Adds a chain of calls, sometimes too long, in live or dead code. */
  protected chain(site: Site, at: Site): void {
    const random = this.random;
    let next: FunctionBody = { slots: [movImm(0, 0), EXIT] };
    for (let n = 3 + random.below(8); n > 0; n--) {
      const within = [movImm(0, 0), slot(0x55, 0, 0, 1, 0), slot(CALL, 0, 1, 0, 0, next)];
      const dead = [movImm(0, 0), slot(0x15, 0, 0, 1, 0), slot(CALL, 0, 1, 0, 0, next)];
      const use = random.once(3) ? [storeImm(8, FP, -8 * (1 + random.below(12)), 1)] : [];
      next = { slots: [...use, ...(random.once(2) ? dead : within), movImm(0, 0), EXIT] };
    }
    this.add(at, [slot(CALL, 0, 1, 0, 0, next)], () => {
      for (let n = 0; n <= 5; n++) site.kinds[n] = "unset";
    });
  }
}

/** Pseudo-random choices: the same seed gives the same lies. */

export class Random {
  #state: number;

  constructor(seed: number) {
    this.#state = seed | 0;
  }

  /** Any 32-bit value (mulberry32). */
  u32(): number {
    this.#state = (this.#state + 0x6d2b79f5) | 0;
    let t = this.#state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return (t ^ (t >>> 14)) >>> 0;
  }

  below(end: number): number {
    return this.u32() % end;
  }

  pick<T>(choices: readonly T[]): T {
    return choices[this.below(choices.length)];
  }

  oneIn(n: number): boolean {
    return this.below(n) === 0;
  }

  /** Returns a value at which checks may fail: small, all ones, one bit, or anything. */
  word(): number {
    const any = this.u32();
    switch (this.below(5)) {
      case 0:
        return any & 0xff;
      case 1:
        return (1 << (any & 31)) >>> 0;
      case 2:
        return 0xffffffff - (any & 3);
      case 3:
        return any & 1 ? 0 : 0xffff;
      default:
        return any;
    }
  }
}

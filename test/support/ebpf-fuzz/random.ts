/** Random numbers determined by a seed, and values at which arithmetic errors are likely. */

export class Random {
  #state: number;

  constructor(seed: number) {
    this.#state = seed >>> 0;
  }

  /** 32 random bits, unsigned (Steele's SplitMix, 32-bit variant). */
  next(): number {
    this.#state = (this.#state + 0x9e3779b9) >>> 0;
    let z = this.#state;
    z = Math.imul(z ^ (z >>> 16), 0x21f0aaad);
    z = Math.imul(z ^ (z >>> 15), 0x735a2d97);
    return (z ^ (z >>> 15)) >>> 0;
  }

  /** An integer in 0..count-1. */
  below(count: number): number {
    return this.next() % count;
  }

  /** True once in `times`, on average. */
  once(times: number): boolean {
    return this.below(times) === 0;
  }

  pick<T>(from: readonly T[]): T {
    return from[this.below(from.length)]!;
  }

  /** A signed 32-bit immediate. */
  immediate(): number {
    if (this.once(3)) return this.next() | 0;
    return this.once(2) ? this.below(256) - 128 : this.pick(EDGES_32) | 0;
  }

  /** 64 bits, unsigned. */
  wide(): bigint {
    if (this.once(2)) return BigInt.asUintN(64, this.pick(EDGES_64) + BigInt(this.below(3) - 1));
    return (BigInt(this.next()) << 32n) | BigInt(this.next());
  }
}

const EDGES_32 = [0, 1, -1, 0x7fffffff, 0x80000000, 0xffff, 0x8000, 0x80, 31, 32, 63, 64];
const EDGES_64 = [0n, 1n << 63n, 1n << 32n, 1n << 31n, 1n << 16n, 0xff00ff00ff00ff00n];

/**
 * Control words of a ring with indices that count up, modulo 2^32, host side: the check of the
 * guest's producer index, kicks, completions, interrupts. A ring holds one and adds what its
 * descriptors are.
 *
 *     clear <= cons <= prod <= clear + bufs
 *
 * `prod`, `clear` and `intr` are the guest's words, and hostile. `cons` in the context is a copy
 * for the guest: the host's own index is here; it is read back only when the queue is enabled.
 */
import { type Field, PRIVATE_OFFSET } from "../abi/index.ts";
import { type QueueCounters, RING_ERRORS } from "../memory/counters.ts";
import type { ContextWords } from "../memory/index.ts";
import type { RingConfig } from "./define.ts";
import type { HostRing } from "./format.ts";

/** Index of the 32-bit word of a field, or of a byte offset, of the private area. */
export function wordOf(at: Field | number): number {
  return (PRIVATE_OFFSET + (typeof at === "number" ? at : at.offset)) >> 2;
}

export interface IndexWords {
  /** Guest: next slot to publish. */
  readonly prod: Field;
  /** Host: next slot to complete. */
  readonly cons: Field;
  /** Guest: next slot to reclaim. */
  readonly clear: Field;
  /** Host: 1 if it wants a kick. */
  readonly kick: Field;
  /** Guest: its interrupt setting. */
  readonly intr: Field;
}

export interface IndexOptions {
  /** For display: which ring it is, and what its interrupt setting is called. */
  readonly name: string;
  readonly intrName?: string;
  /** `slot`: `intr` is the slot whose completion interrupts. `each`: all do, unless it is 0. */
  readonly interrupt: "slot" | "each";
}

export class IndexControl implements HostRing {
  broken = false;
  /** Next slot to use. The context's `cons` is a copy for the guest, never read back. */
  cons = 0;
  /** What the context's `cons` says: completions up to here are published. */
  #published = 0;
  /** The guest's `prod` as last loaded. */
  #prod = 0;
  /** The guest's `prod` when what it had published was too little for a packet. */
  #stalledAt = 0;
  #stalled = false;
  readonly #prodWord: number;
  readonly #consWord: number;
  readonly #clearWord: number;
  readonly #kickWord: number;
  readonly #intrWord: number;
  readonly #each: boolean;
  readonly #names: readonly [ring: string, intr: string];
  readonly #words: ContextWords;
  readonly #bufs: number;
  readonly #counters: QueueCounters;

  constructor({ words, bufs, counters }: RingConfig, at: IndexWords, options: IndexOptions) {
    this.#words = words;
    this.#bufs = bufs;
    this.#counters = counters;
    this.#prodWord = wordOf(at.prod);
    this.#consWord = wordOf(at.cons);
    this.#clearWord = wordOf(at.clear);
    this.#kickWord = wordOf(at.kick);
    this.#intrWord = wordOf(at.intr);
    this.#each = options.interrupt === "each";
    this.#names = [options.name, options.intrName ?? "intr"];
  }

  /** Loads the guest's producer index. @returns published slots not yet used; 0 if it is invalid */
  available(): number {
    this.#prod = this.#words.load(this.#prodWord);
    if (this.broken) return 0;
    const published = (this.#prod - this.cons) >>> 0;
    if (published > this.#bufs) {
      this.broken = true;
      this.#counters[RING_ERRORS]++;
      return 0;
    }
    return published;
  }

  /** What is published is too little for a packet: no work until the guest publishes more. */
  stall(): void {
    this.#stalled = true;
    this.#stalledAt = this.#prod;
  }

  fill(): number {
    return Math.min((this.#words.load(this.#prodWord) - this.cons) >>> 0, this.#bufs);
  }

  /** Store the kick request, full barrier, check the ring once more. */
  enableKicks(): boolean {
    // `store` is sequentially consistent: it is the full barrier before the load of `prod`.
    this.#words.store(this.#kickWord, 1);
    if (this.available() === 0 || (this.#stalled && this.#prod === this.#stalledAt)) return false;
    this.#words.store(this.#kickWord, 0);
    return true;
  }

  disableKicks(): void {
    this.#words.store(this.#kickWord, 0);
  }

  save(): number {
    return this.cons >>> 0;
  }

  restore(position: number): void {
    this.cons = position | 0;
    this.#publish();
  }

  resync(): void {
    // Not checked: an index that does not fit the guest's `prod` is found when that is loaded.
    this.cons = this.#words.load(this.#consWord);
    this.#published = this.cons;
  }

  /**
   * Publishes completions up to `cons`.
   * @returns true if the guest wants an interrupt for one of them
   */
  complete(): boolean {
    const old = this.#published;
    if (this.cons === old) return false;
    this.#publish();
    return this.#interruptWanted(old);
  }

  /**
   * `store` is sequentially consistent: descriptors are written before it, and it is the full
   * barrier before the load of the guest's interrupt setting.
   */
  #publish(): void {
    this.#words.store(this.#consWord, this.cons);
    this.#published = this.cons;
  }

  interruptOverdue(): boolean {
    // The guest's word, not checked: a wrong one costs the guest an interrupt, or one too many.
    const clear = this.#words.load(this.#clearWord);
    return clear !== this.cons && this.#interruptWanted(clear);
  }

  /** For slots from `from` up to `cons`. */
  #interruptWanted(from: number): boolean {
    const intr = this.#words.load(this.#intrWord);
    if (this.#each) return intr !== 0;
    return (this.cons - intr - 1) >>> 0 < (this.cons - from) >>> 0;
  }

  dump(): string {
    const at = (index: number) => this.#words.load(index) >>> 0;
    const [name, intr] = this.#names;
    return (
      `${name} cl ${at(this.#clearWord)} co ${this.cons >>> 0} pr ${at(this.#prodWord)} ` +
      `kick ${at(this.#kickWord)} ${intr} ${at(this.#intrWord)}`
    );
  }
}

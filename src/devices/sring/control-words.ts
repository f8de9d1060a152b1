/**
 * The control words of sring and sring_gso, host side: indices, kicks, interrupts, and the check of
 * the guest's producer index. A ring holds one; see host.ts for what is trusted.
 */
import { PRIVATE_OFFSET } from "../../abi/index.ts";
import { type QueueCounters, RING_ERRORS } from "../../memory/counters.ts";
import type { ContextWords } from "../../memory/index.ts";
import type { RingConfig } from "../define.ts";
import type { HostRing } from "../format.ts";
import { SRING } from "./layout.ts";

/** Indices of 32-bit words in a context. */
const word = (offset: number): number => (PRIVATE_OFFSET + offset) >> 2;
const PROD = word(SRING.prod.offset);
const INTR = word(SRING.intr.offset);
const CONS = word(SRING.cons.offset);
const KICK = word(SRING.kick_enabled.offset);
const QMASK = word(SRING.qmask.offset);
const CLEAR = word(SRING.clear.offset);
export const DESCRIPTORS = word(SRING.size);

export function initialiseSring(direction: "rx" | "tx", words: ContextWords, bufs: number): void {
  words.set(QMASK, bufs - 1);
  words.set(KICK, 1);
  words.set(INTR, direction === "rx" ? 1 : 0);
  words.store(CONS, 0);
}

export class SringControl implements HostRing {
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
  readonly #rx: boolean;
  readonly #words: ContextWords;
  readonly #bufs: number;
  readonly #counters: QueueCounters;

  constructor(direction: "rx" | "tx", { words, bufs, counters }: RingConfig) {
    this.#rx = direction === "rx";
    this.#words = words;
    this.#bufs = bufs;
    this.#counters = counters;
  }

  /** Loads the guest's producer index. @returns published slots not yet used; 0 if it is invalid */
  available(): number {
    this.#prod = this.#words.load(PROD);
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
    return Math.min((this.#words.load(PROD) - this.cons) >>> 0, this.#bufs);
  }

  /** Store the kick request, full barrier, check the ring once more. */
  enableKicks(): boolean {
    // `store` is sequentially consistent: it is the full barrier before the load of `prod`.
    this.#words.store(KICK, 1);
    if (this.available() === 0 || (this.#stalled && this.#prod === this.#stalledAt)) return false;
    this.#words.store(KICK, 0);
    return true;
  }

  disableKicks(): void {
    this.#words.store(KICK, 0);
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
    this.cons = this.#words.load(CONS);
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
    this.#words.store(CONS, this.cons);
    this.#published = this.cons;
  }

  interruptOverdue(): boolean {
    // The guest's word, not checked: a wrong one costs the guest an interrupt, or one too many.
    const clear = this.#words.load(CLEAR);
    return clear !== this.cons && this.#interruptWanted(clear);
  }

  /** RX: are interrupts on? TX: is slot `intr` among those from `from` up to `cons`? */
  #interruptWanted(from: number): boolean {
    const intr = this.#words.load(INTR);
    if (this.#rx) return intr !== 0;
    return (this.cons - intr - 1) >>> 0 < (this.cons - from) >>> 0;
  }

  dump(): string {
    const at = (index: number) => this.#words.load(index) >>> 0;
    const [name, label] = this.#rx ? ["rxq", "intr"] : ["txq", "intr_at"];
    return (
      `sring.${name} cl ${at(CLEAR)} co ${this.cons >>> 0} pr ${at(PROD)} ` +
      `kick ${at(KICK)} ${label} ${at(INTR)}`
    );
  }
}

/**
 * What the host halves of sring and sring_gso share: control words, indices, kicks, and the check
 * of the guest's producer index. See host.ts for what is trusted and what is not.
 */
import { PRIVATE_OFFSET } from "../../abi/index.ts";
import { BATCHES, BYTES, PACKETS, RING_ERRORS } from "../../memory/counters.ts";
import { type Batch, type ContextWords, contextWords } from "../../memory/index.ts";
import { clearPrivate, HostRingBase } from "../host-ring.ts";
import { SRING } from "./layout.ts";

/** Indices of 32-bit words in a context. */
const word = (offset: number): number => (PRIVATE_OFFSET + offset) >> 2;
export const PROD = word(SRING.prod.offset);
export const INTR = word(SRING.intr.offset);
export const CONS = word(SRING.cons.offset);
export const KICK = word(SRING.kick_enabled.offset);
const QMASK = word(SRING.qmask.offset);
const CLEAR = word(SRING.clear.offset);
export const DESCRIPTORS = word(SRING.size);

export function initialiseSring(
  direction: "rx" | "tx",
  context: ArrayBuffer | ContextWords,
  bufs: number,
): void {
  const words = contextWords(context);
  clearPrivate(words);
  words.set(QMASK, bufs - 1);
  words.set(KICK, 1);
  words.set(INTR, direction === "rx" ? 1 : 0);
  words.store(CONS, 0);
}

/** What both directions share: indices, kicks, and the check of the guest's producer index. */
export abstract class SringHalf extends HostRingBase {
  broken = false;
  /** Next slot to use. The context's `cons` is a copy for the guest, never read back. */
  protected cons = 0;
  /** What the context's `cons` says: completions up to here are published. */
  protected published = 0;
  /** The guest's `prod` as last loaded. */
  protected prod = 0;

  /** Loads the guest's producer index. @returns published entries not yet used; 0 where it lies. */
  protected available(): number {
    this.prod = this.words.load(PROD);
    if (this.broken) return 0;
    const published = (this.prod - this.cons) >>> 0;
    if (published > this.bufs) {
      this.broken = true;
      this.counters[RING_ERRORS]++;
      return 0;
    }
    return published;
  }

  pending(): boolean {
    return this.available() > 0;
  }

  fill(): number {
    return Math.min((this.words.load(PROD) - this.cons) >>> 0, this.bufs);
  }

  /**
   * Consumer's half of the suppression pattern: store the kick request, full barrier, look again.
   */
  enableKicks(): boolean {
    // `store` is sequentially consistent: it is the full barrier before the load of `prod`.
    this.words.store(KICK, 1);
    if (this.available() === 0) return false;
    this.words.store(KICK, 0);
    return true;
  }

  disableKicks(): void {
    this.words.store(KICK, 0);
  }

  save(): number {
    return this.cons >>> 0;
  }

  restore(position: number): void {
    this.cons = position | 0;
    this.publish();
  }

  resync(): void {
    // Whatever the guest wrote: an index that does not fit its
    // `prod` is caught where that is loaded.
    this.cons = this.words.load(CONS);
    this.published = this.cons;
  }

  /**
   * Publishes completions. `store` is sequentially consistent: what was written to descriptors is
   * visible before it, and it is the full barrier before the caller loads the guest's
   * interrupt setting.
   */
  protected publish(): void {
    this.words.store(CONS, this.cons);
    this.published = this.cons;
  }

  /**
   * Completes the first `count` packets of a batch that was sent.
   * @returns true if an interrupt is wanted
   */
  protected complete(batch: Batch, count: number): boolean {
    const { counters } = this;
    if (count > 0) {
      this.cons = batch.cursor[count - 1];
      counters[PACKETS] += count;
      counters[BATCHES]++;
      for (let p = 0; p < count; p++) counters[BYTES] += batch.length[p];
    }
    const old = this.published;
    if (this.cons === old) return false;
    this.publish();
    const interruptAt = this.words.load(INTR);
    return (this.cons - interruptAt - 1) >>> 0 < (this.cons - old) >>> 0;
  }

  /** TX: its slot, `intr_at`, is complete and not taken back. */
  interruptOverdue(): boolean {
    const { cons } = this;
    const interruptAt = this.words.load(INTR);
    return (cons - interruptAt - 1) >>> 0 < (cons - this.takenBack) >>> 0;
  }

  /** The guest's index of what it took back: its word, not checked. */
  protected get takenBack(): number {
    return this.words.load(CLEAR);
  }

  protected line(name: string, label: string): string {
    const at = (index: number) => this.words.load(index) >>> 0;
    return (
      `${name} cl ${at(CLEAR)} co ${this.cons >>> 0} pr ${at(PROD)} ` +
      `kick ${at(KICK)} ${label} ${at(INTR)}`
    );
  }
}

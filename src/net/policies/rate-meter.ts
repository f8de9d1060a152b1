/**
 * The rate limits of one direction of a NIC: a bucket for bytes, one for packets, and who waits for
 * them. All queues of the NIC share them.
 */
import type { Batch } from "../../memory/index.ts";
import { TokenBucket, type TokenRate } from "./token-bucket.ts";

export interface DirectionRates {
  /** null: no limit. */
  readonly bytes: TokenRate | null;
  readonly packets: TokenRate | null;
}

/**
 * The shortest wait. Within it the buckets gain tokens for a batch: a wake-up for each packet would
 * cost more than the packet.
 */
const ROUND_MS = 1;
/** So long a queue waits that has to let another one go first: until the loop's next turn. */
const NEXT_TURN_MS = 0.001;

export class RateMeter {
  readonly #clock: () => number;
  #bytes: TokenBucket | null = null;
  #packets: TokenBucket | null = null;
  /** Of each queue: when it may try again; 0: it does not wait. */
  readonly #until: number[] = [];
  /** The queue whose turn it is when several wait. */
  #first = 0;
  /** What it has taken in its turn, as the time in which the buckets gain that. */
  #turnMs = 0;

  constructor(clock: () => number) {
    this.#clock = clock;
  }

  /** Sets the limits, before queues join; tokens that were taken stay taken. */
  set({ bytes, packets }: DirectionRates): void {
    const now = this.#clock();
    this.#bytes = successor(this.#bytes, bytes, now);
    this.#packets = successor(this.#packets, packets, now);
    // The queues join again; whether the new limits hold one back is found out by trying.
    this.#until.length = 0;
    this.#turnTo(0);
  }

  /** @returns the number of another queue */
  join(): number {
    return this.#until.push(0) - 1;
  }

  get isLimited(): boolean {
    return this.#bytes !== null || this.#packets !== null;
  }

  fill(): void {
    const now = this.#clock();
    this.#bytes?.fill(now);
    this.#packets?.fill(now);
  }

  /** Is there anything left in each bucket? As of the last `fill`. */
  get open(): boolean {
    return (this.#bytes?.has(1) ?? true) && (this.#packets?.has(1) ?? true);
  }

  /** Packets, and bytes, that may come now. The last packet may be longer than what is left. */
  get packetsLeft(): number {
    return this.#packets === null ? Number.POSITIVE_INFINITY : Math.floor(this.#packets.level);
  }

  get bytesLeft(): number {
    return this.#bytes === null ? Number.POSITIVE_INFINITY : this.#bytes.level;
  }

  /** @returns how many packets of the front of a queue's batch may go now */
  admitted(queue: number, { packets, length }: Batch): number {
    if (this.givesWay(queue)) return 0;
    const most = Math.min(packets, this.packetsLeft);
    if (this.#bytes === null) return most;
    let left = this.#bytes.level;
    // One that is longer than a burst goes when the bucket is full.
    if (most > 0 && length[0] > left) return this.#bytes.has(length[0]) ? 1 : 0;
    for (let p = 0; p < most; p++) {
      left -= length[p];
      if (left < 0) return p;
    }
    return most;
  }

  /** A queue moved packets. */
  take(queue: number, packets: number, bytes: number): void {
    this.#packets?.take(packets);
    this.#bytes?.take(bytes);
    if (queue !== this.#first) return;
    const forBytes = this.#bytes?.msFor(bytes) ?? 0;
    const forPackets = this.#packets?.msFor(packets) ?? 0;
    this.#turnMs += Math.max(forBytes, forPackets);
    if (this.#turnMs >= ROUND_MS) this.#turnTo(this.#nextWaiting(queue));
  }

  #turnTo(queue: number): void {
    this.#first = queue;
    this.#turnMs = 0;
  }

  /** A queue waits for a packet of so many bytes, from the last `fill` on. */
  hold(queue: number, bytes: number): void {
    const forBytes = this.#bytes?.msUntil(bytes) ?? 0;
    const forPackets = this.#packets?.msUntil(1) ?? 0;
    this.#until[queue] = this.#clock() + Math.max(ROUND_MS, forBytes, forPackets);
  }

  /** Milliseconds until a queue may try again; 0: it does not wait. */
  heldMs(queue: number): number {
    const until = this.#until[queue];
    if (until === 0) return 0;
    const now = this.#clock();
    const left = Math.max(until - now, this.#waitForFirst(queue, now));
    if (left > 0) return left;
    this.#until[queue] = 0;
    return 0;
  }

  /** Does a queue have to let another one go first, which has waited for longer? */
  givesWay(queue: number): boolean {
    const first = this.#first;
    if (first === queue || this.#until[first] === 0) return false;
    return this.#waitForFirst(queue, this.#clock()) > 0;
  }

  /**
   * The loop asks its queues in the same order in each turn, so without turns the first one would
   * get all tokens, and short packets would take those that a long one waits for.
   */
  #waitForFirst(queue: number, now: number): number {
    const first = this.#first;
    if (first === queue) return 0;
    const until = this.#until[first];
    if (until !== 0 && now < until + ROUND_MS) return Math.max(until - now, NEXT_TURN_MS);
    // It has nothing to send any more, or it would have tried.
    this.#until[first] = 0;
    this.#turnTo(queue);
    return 0;
  }

  #nextWaiting(after: number): number {
    const count = this.#until.length;
    for (let n = 1; n < count; n++) {
      const queue = (after + n) % count;
      if (this.#until[queue] !== 0) return queue;
    }
    return after;
  }

  /** Tokens that the buckets lack, bytes first: what a later process goes on with. */
  get owed(): readonly number[] {
    return [this.#bytes, this.#packets].map((bucket) =>
      bucket === null ? 0 : Math.max(0, Math.ceil(bucket.burst - bucket.level)),
    );
  }

  owe([bytes, packets]: readonly number[]): void {
    this.#bytes?.take(bytes);
    this.#packets?.take(packets);
  }
}

function successor(old: TokenBucket | null, rate: TokenRate | null, now: number) {
  if (rate === null) return null;
  const bucket = new TokenBucket(rate, now);
  if (old === null) return bucket;
  old.fill(now);
  bucket.take(Math.min(rate.burst, old.burst) - Math.min(rate.burst, old.level));
  return bucket;
}

/** How a pair receives while the guest's table chooses the queue of each packet. */
import type { ReceiveFilter } from "../memory/index.ts";
import { type StagedReceiver, Staging, type Steering } from "./steering.ts";

export class SteeredReceive {
  readonly #own: StagedReceiver;
  readonly #receivers: readonly StagedReceiver[];
  readonly #staging: Staging;
  #table: Uint8Array | null = null;

  constructor(own: StagedReceiver, receivers: readonly StagedReceiver[], budget: number) {
    this.#own = own;
    this.#receivers = receivers;
    this.#staging = new Staging(budget, receivers.length);
  }

  /** The table is in use, or packets that it was used for are left. */
  get active(): boolean {
    return this.#table !== null || this.#staging.left > 0;
  }

  /** Packets that the port gave and that are in no ring yet. */
  get left(): number {
    return this.#staging.left;
  }

  /** The port may be read: every packet that it gave is in its ring. */
  get ready(): boolean {
    return this.#staging.left === 0;
  }

  /** @param steering null: packets that are left find their rings as before */
  set(steering: Steering | null, filter: ReceiveFilter | null): void {
    const { batch } = this.#staging;
    this.#table = steering?.table ?? null;
    batch.flowHash = steering?.hash ?? null;
    batch.filter = filter;
  }

  setUrgent(urgent: boolean): void {
    this.#staging.batch.urgent = urgent;
  }

  discard(): number {
    return this.#staging.discard();
  }

  /** Reads up to `most` packets from the port, if none are left. @returns packets in rings */
  fill(most: number): number {
    const staging = this.#staging;
    if (staging.left === 0 && this.#table !== null) {
      this.#own.receiveInto(staging.begin(most));
      staging.sort(this.#table);
    }
    let moved = 0;
    for (let q = 0; q < this.#receivers.length && staging.left > 0; q++) {
      if (staging.first(q) >= 0) moved += this.#receivers[q].takeStaged(staging, q);
    }
    return moved;
  }
}

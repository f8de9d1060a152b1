/** A port whose outside is its own inside: what the guest sends comes back to it, in order. Metadata does not. */
import type { Batch } from "../memory/index.ts";
import { BasePort, packetBytes, receiveCopy } from "./base.ts";

/** Packets under way at most. */
const CAPACITY = 512;

export class LoopbackPort extends BasePort {
  readonly name = "loopback";
  readonly #frames: Uint8Array[] = [];
  readonly #dropWhenFull: boolean;

  /** @param whenFull `wait`: it would block, and whoever drives it says when to try again */
  constructor(whenFull: "wait" | "drop") {
    super();
    this.#dropWhenFull = whenFull === "drop";
  }

  send(batch: Batch): number {
    this.sendBlocked = false;
    for (let p = 0; p < batch.packets; p++) {
      if (this.#frames.length < CAPACITY) this.#frames.push(packetBytes(batch, p));
      else if (this.#dropWhenFull) this.dropped++;
      else {
        this.sendBlocked = true;
        return p;
      }
    }
    return batch.packets;
  }

  receive(batch: Batch): void {
    while (batch.canReceive && this.#frames.length > 0) {
      if (!receiveCopy(batch, this.#frames.shift() as Uint8Array)) this.tooLong++;
    }
    this.receiveDrained = this.#frames.length === 0;
  }
}

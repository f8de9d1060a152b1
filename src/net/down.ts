/** A port whose link is held down: it stays open, and nothing passes. */
import type { Batch } from "../memory/index.ts";
import { ForwardingPort } from "./forwarding.ts";

export class DownPort extends ForwardingPort {
  readonly sendBlocked = false;
  #refused = 0;

  override get fd(): number {
    return -1;
  }

  override get linkUp(): boolean {
    return false;
  }

  override get receiveDrained(): boolean {
    return true;
  }

  override get dropped(): number {
    return this.port.dropped + this.#refused;
  }

  send(batch: Batch): number {
    this.#refused += batch.packets;
    return batch.packets;
  }

  override receive(_batch: Batch): void {}
}

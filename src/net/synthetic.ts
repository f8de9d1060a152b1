/** Ports without an outside, for tests and benches: `sink` swallows, `source` never ends. */
import type { Batch } from "../memory/index.ts";
import { viewAt } from "../os/libc.ts";
import type { Port } from "./port.ts";

/** Takes every packet and gives none. */
export class SinkPort implements Port {
  readonly name: string = "sink";
  readonly fd = -1;
  linkUp = true;
  sendBlocked = false;
  receiveDrained = true;
  dropped = 0;
  sent = 0;

  send(batch: Batch): number {
    this.sent += batch.packets;
    return batch.packets;
  }

  receive(_batch: Batch): number {
    return 0;
  }

  close(): void {}
}

/** Gives the same packet for ever (or `count` times) and takes all. */
export class SourcePort extends SinkPort {
  override readonly name = "source";
  override receiveDrained = false;
  readonly #frame: Uint8Array;
  #left: number;

  constructor(frame: Uint8Array, count = Number.POSITIVE_INFINITY) {
    super();
    this.#frame = frame;
    this.#left = count;
  }

  override receive(batch: Batch): number {
    let p = 0;
    for (; p < batch.packets && this.#left > 0; p++, this.#left--) {
      const length = Math.min(this.#frame.length, batch.size[p]);
      new Uint8Array(viewAt(batch.address[p], length)).set(this.#frame.subarray(0, length));
      batch.length[p] = length;
    }
    this.receiveDrained = this.#left === 0;
    return p;
  }
}

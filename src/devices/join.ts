/**
 * A ring of two parts: control words (indices, kicks, interrupts), which do not depend on what a
 * descriptor holds, and the path of packets in one direction. Formats share either part that way.
 */
import type { Batch } from "../memory/index.ts";
import type { HostRing, RxPath, RxRing, TxPath, TxRing } from "./format.ts";

/** Each call is passed on; the engine makes a few per batch, none per packet. */
class Joined implements HostRing {
  readonly #control: HostRing;

  constructor(control: HostRing) {
    this.#control = control;
  }

  get broken(): boolean {
    return this.#control.broken;
  }
  enableKicks(): boolean {
    return this.#control.enableKicks();
  }
  disableKicks(): void {
    this.#control.disableKicks();
  }
  fill(): number {
    return this.#control.fill();
  }
  interruptOverdue(): boolean {
    return this.#control.interruptOverdue();
  }
  save(): number {
    return this.#control.save();
  }
  restore(position: number): void {
    this.#control.restore(position);
  }
  resync(): void {
    this.#control.resync();
  }
  recover(): void {
    if (this.#control.recover === undefined) this.#control.resync();
    else this.#control.recover();
  }
  dump(): string {
    return this.#control.dump();
  }
}

class JoinedTx extends Joined implements TxRing {
  readonly #path: TxPath;

  constructor(control: HostRing, path: TxPath) {
    super(control);
    this.#path = path;
  }
  gather(batch: Batch): number {
    return this.#path.gather(batch);
  }
  consume(batch: Batch, count: number): boolean {
    return this.#path.consume(batch, count);
  }
}

class JoinedRx extends Joined implements RxRing {
  readonly #path: RxPath;

  constructor(control: HostRing, path: RxPath) {
    super(control);
    this.#path = path;
  }
  offer(batch: Batch, max: number): number {
    return this.#path.offer(batch, max);
  }
  deliver(batch: Batch): boolean {
    return this.#path.deliver(batch);
  }
  discard(count: number): void {
    this.#path.discard?.(count);
  }
}

export function joinTx(control: HostRing, path: TxPath): TxRing {
  return new JoinedTx(control, path);
}

export function joinRx(control: HostRing, path: RxPath): RxRing {
  return new JoinedRx(control, path);
}

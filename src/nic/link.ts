/** Link state and MTU. The guest learns of a change by EVENT. */
import type { QueuePair } from "../engine/pair.ts";
import { MIN_MTU } from "./config.ts";

export class Link {
  /** Bytes behind the Ethernet header and up to two VLAN tags. */
  mtu: number;
  readonly #maxMtu: number;
  readonly #pairs: readonly QueuePair[];
  readonly #changed: () => void;
  /** As the guest was last notified. */
  wasUp = false;

  /** @param changed notifies the guest */
  constructor(pairs: readonly QueuePair[], maxMtu: number, changed: () => void) {
    this.mtu = maxMtu;
    this.#maxMtu = maxMtu;
    this.#pairs = pairs;
    this.#changed = changed;
  }

  /** All ports are up, and the driver has registered all receive contexts. */
  get up(): boolean {
    return this.#pairs.every(({ port, rx }) => port.linkUp && rx.registered);
  }

  /** Notifies the guest if the link changed. */
  follow(): void {
    const { up } = this;
    if (up === this.wasUp) return;
    this.wasUp = up;
    this.#changed();
  }

  /**
   * Sets the MTU and notifies the guest. The start value is the maximum: the guest's buffers were
   * made for it.
   * @returns why the MTU stays as it is; null if it is set
   */
  setMtu(mtu: number): string | null {
    if (!Number.isInteger(mtu) || mtu < MIN_MTU || mtu > this.#maxMtu) {
      return `MTU ${mtu}: use ${MIN_MTU} to ${this.#maxMtu}, which the NIC was started with`;
    }
    if (mtu === this.mtu) return null;
    this.mtu = mtu;
    this.#changed();
    return null;
  }
}

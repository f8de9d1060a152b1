/** The descriptor by which a VMM hears that its guest shall take new programs. */
import { signalPeer } from "../../os/eventfd.ts";
import { close } from "../../os/fd.ts";

export class UpgradeSignal {
  #fd = -1;

  /** @param fd -1: none */
  set(fd: number): void {
    if (this.#fd >= 0) close(this.#fd);
    this.#fd = fd;
  }

  /** @returns false if the VMM gave no descriptor for it */
  send(): boolean {
    return this.#fd >= 0 && signalPeer(this.#fd);
  }
}

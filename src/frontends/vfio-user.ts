/** The NIC as a vfio-user PCI device: stock QEMU's `vfio-user-pci` is the client. */
import {
  BAR_DOORBELLS,
  BAR_MSIX,
  PCI_CLASS_ETHERNET,
  PCI_DEVICE,
  PCI_VENDOR,
} from "../abi/index.ts";
import { CONTROL_TAG, type Control } from "../engine/loop.ts";
import { barsOf, readBar, writeBar } from "../nic/bars.ts";
import type { Nic } from "../nic/nic.ts";
import type { HandshakeStep } from "../nic/state.ts";
import type { Epoll } from "../os/epoll.ts";
import {
  type Bar,
  type DeviceHost,
  type PciDevice,
  type ServerOptions,
  VfioUserServer,
} from "../vfio-user/index.ts";

export interface VfioUserFrontendOptions extends ServerOptions {
  readonly pciDevice?: number;
  readonly interrupts?: PciDevice["interrupts"];
  /** Called after messages were handled, and after a client came or went. */
  readonly handled?: () => void;
}

/** QEMU gives a request up after 5 s. The loop calls `handle` at least once a second. */
const LATE_MS = 4000;

/** The NIC in the terms of the vfio-user library. */
export function nicAsPciDevice(
  nic: Nic,
  pciDevice = PCI_DEVICE,
  interrupts: PciDevice["interrupts"] = "msix",
): PciDevice {
  const bars: (Bar | null)[] = [null, null, null, null, null, null];
  for (const { index, size } of barsOf(nic)) bars[index] = { size };
  return {
    identity: { vendor: PCI_VENDOR, device: pciDevice, classCode: PCI_CLASS_ETHERNET },
    bars,
    vectors: 2 * nic.config.pairs + 1,
    interrupts,
    msixBar: BAR_MSIX,
    doorbells: BAR_DOORBELLS,
    read: (bar, offset, size) => readBar(nic, bar, offset, size),
    write: (bar, offset, size, low, high) => {
      writeBar(nic, bar, offset, Math.min(size, 4), low);
      if (size === 8) writeBar(nic, bar, offset + 4, 4, high);
    },
    reset: () => nic.reset(),
    busMasterChanged: (enabled) => nic.busMasterChanged(enabled),
    attached: (host: DeviceHost) =>
      nic.attach({ memory: host.dma, fire: (vector) => host.fire(vector) }),
    detached: () => nic.detach(),
  };
}

/** Serves the NIC from the engine's loop. */
export class VfioUserFrontend implements Control {
  readonly server: VfioUserServer;
  readonly #nic: Nic;
  readonly #handled: () => void;
  #epoll: Epoll | null = null;
  #isOpen = false;

  /** @throws OsError if the socket cannot be made */
  constructor(nic: Nic, options: VfioUserFrontendOptions) {
    this.#nic = nic;
    this.#handled = options.handled ?? (() => {});
    this.server = new VfioUserServer(nicAsPciDevice(nic, options.pciDevice, options.interrupts), {
      lateAfterMs: LATE_MS,
      ...options,
    });
  }

  register(epoll: Epoll): void {
    this.#epoll = epoll;
    this.letIn();
  }

  /** Accepts clients if the NIC has its programs. Until then they wait in the socket's backlog. */
  letIn(): void {
    if (this.#isOpen || this.#epoll === null || !this.#nic.running.complete) return;
    this.#isOpen = true;
    this.server.register(this.#epoll, CONTROL_TAG);
  }

  get timeoutMs(): number {
    return this.#isOpen ? this.server.timeoutMs : -1;
  }

  handle(): number {
    if (!this.#isOpen) return 0;
    const { connected } = this.server;
    this.server.handleTimers();
    const messages = this.server.handleReadable();
    if (messages > 0) this.#nic.memoryChanged();
    if (messages > 0 || this.server.connected !== connected) this.#handled();
    return messages;
  }

  /**
   * How far the guest is; a client that has sent nothing yet keeps others out, so it is shown, too.
   */
  get step(): HandshakeStep {
    const { step } = this.#nic;
    return step === "no guest" && this.server.connected ? "client connected" : step;
  }

  close(): void {
    this.server.close();
  }
}

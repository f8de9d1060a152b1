/** One queue of a backend: its context, its two notifiers, and its ring while the direction is enabled. */
import type { Device, RxRing, TxRing } from "../../devices/format.ts";
import type { QueuePair } from "../../engine/pair.ts";
import type { GuestMemory } from "../../memory/index.ts";
import { longestReceived, receiveOffloads } from "../../memory/offloads.ts";
import {
  type MappedContext,
  mapContiguous,
  releaseContext,
  stillThere,
} from "../../nic/contexts.ts";
import { signalPeer } from "../../os/eventfd.ts";
import { close } from "../../os/fd.ts";

export interface QueueWatch {
  /** A kick descriptor comes, or goes before it is closed: for the loop to wait on. */
  readonly watchKick: (queue: number, fd: number) => void;
  readonly unwatchKick: (queue: number, fd: number) => void;
}

/** What a ring needs to know besides its context. */
export interface RingSettings {
  readonly memory: GuestMemory;
  readonly bufs: number;
  /** Feature bits that were selected. */
  readonly features: number;
}

/** The protocol cannot say another one. */
export const MTU = 1500;

export class ProxyQueue {
  readonly name: string;
  readonly receive: boolean;
  /** As registered; null: none. */
  address: number | null = null;
  /** null, too, while the memory that it lay in is not there. */
  context: MappedContext | null = null;
  kickFd = -1;
  irqFd = -1;
  enabled = false;
  readonly #index: number;
  readonly #device: Device;
  readonly #pair: QueuePair;
  readonly #watch: QueueWatch;
  /** The ring's own position while no ring is attached. */
  #position = 0;

  constructor(
    name: string,
    index: number,
    options: { readonly device: Device; readonly pair: QueuePair } & QueueWatch,
  ) {
    this.name = name;
    this.receive = name.startsWith("RX");
    this.#index = index;
    this.#device = options.device;
    this.#pair = options.pair;
    this.#watch = options;
  }

  /* Context and ring */

  /** Takes a context that the guest has just registered, and initialises it. */
  register(address: number, context: MappedContext, bufs: number): void {
    this.#device.initialise(this.receive ? "rx" : "tx", context.words, bufs);
    this.detachRing();
    releaseContext(this.context);
    this.address = address;
    this.context = context;
    this.#position = 0;
  }

  forget(): void {
    this.detachRing();
    releaseContext(this.context);
    this.address = null;
    this.context = null;
    this.#position = 0;
  }

  /** Looks for the context in a changed memory table. @returns false where the change took it away */
  findContext(memory: GuestMemory, size: number): boolean {
    if (this.address === null) return true;
    if (this.context !== null && stillThere(memory, this.context)) return true;
    const had = this.context !== null;
    releaseContext(this.context);
    const context = mapContiguous(memory, this.address, size);
    this.context = typeof context === "string" ? null : context;
    return !had || this.context !== null;
  }

  /** @param fresh the guest has just enabled the direction, and may have reclaimed before */
  attachRing(settings: RingSettings, fresh: boolean): void {
    if (this.context === null) return;
    const { features } = settings;
    const pair = this.#pair;
    const config = {
      ...settings,
      context: this.context.words,
      counters: this.receive ? pair.rxCounters : pair.txCounters,
      maxPacket: longestReceived(features, MTU),
    };
    // What was negotiated, not what the command line allows, decides what the port may bring.
    if (this.receive) pair.setReceiveOffloads(receiveOffloads(features));
    const ring = this.receive ? this.#device.rx(config) : this.#device.tx(config);
    if (fresh) {
      ring.resync();
      // A rest was the answer to what the last driver published.
      pair.endRest();
    } else ring.restore(this.#position);
    // Awake, the loop looks at rings anyway; where it never sleeps, no kick is ever wanted.
    ring.disableKicks();
    if (this.receive) {
      pair.rx = ring as RxRing;
      pair.rxStarved = false;
    } else {
      pair.tx = ring as TxRing;
      pair.portWritable();
    }
  }

  detachRing(): void {
    const pair = this.#pair;
    const ring = this.receive ? pair.rx : pair.tx;
    if (ring === null) return;
    this.#position = ring.save();
    if (this.receive) pair.rx = null;
    else pair.tx = null;
  }

  /* Notifiers */

  /** @param fd -1: none @throws OsError where it cannot be waited for; then the old one stays */
  setKick(fd: number): void {
    if (fd >= 0) this.#watch.watchKick(this.#index, fd);
    this.#dropKick();
    this.kickFd = fd;
  }

  #dropKick(): void {
    if (this.kickFd < 0) return;
    this.#watch.unwatchKick(this.#index, this.kickFd);
    close(this.kickFd);
    this.kickFd = -1;
  }

  /** @param fd -1: none */
  setIrq(fd: number): void {
    if (this.irqFd >= 0) close(this.irqFd);
    this.irqFd = fd;
  }

  /** Interrupts the guest. @returns false if it cannot be reached */
  fire(): boolean {
    return this.irqFd >= 0 && signalPeer(this.irqFd);
  }

  /** Lets go of all that belongs to the connection. */
  release(): void {
    this.forget();
    this.#dropKick();
    this.setIrq(-1);
  }
}

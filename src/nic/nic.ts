/**
 * The bpfhv device model: what registers, doorbells and the machine do to queues and programs. It
 * knows no VMM (see src/frontends), no ring format (see src/devices) and no register offsets (see
 * register-table.ts).
 *
 * A guest's accesses can only disable its own NIC: whatever is invalid is ignored and counted in
 * `refusals`.
 */
import { ABILITY, EVENT, type ProgramForm, STATUS } from "../abi/index.ts";
import type { ProgramSets } from "../devices/program-set.ts";
import { drainTransmit } from "../engine/drain.ts";
import type { QueuePair } from "../engine/pair.ts";
import type { Queue } from "../engine/queue.ts";
import type { RingSettings } from "../engine/registered-ring.ts";
import type { Steering } from "../engine/steering.ts";
import type { GuestMemory } from "../memory/index.ts";
import { checkConfig, type NicConfig, offeredFeatures } from "./config.ts";
import { Generation } from "./generation.ts";
import { Link } from "./link.ts";
import { Refusals } from "./refusals.ts";
import {
  coalescing,
  type HandshakeStep,
  newNicState,
  type RssState,
  receiveFilter,
  steeringOf,
} from "./state.ts";
import { Upgrade } from "./upgrade.ts";

/** Transmission stops while a CPU of the guest waits: the port gets what it takes at once. */
const STOP_DRAIN_MS = 0;

/** The machine, as the NIC uses it. */
export interface NicHost {
  readonly memory: GuestMemory;
  /** Raises an MSI-X vector. */
  fire(vector: number): void;
}

export class Nic {
  readonly config: NicConfig;
  readonly pairs: readonly QueuePair[];
  /** Receive queues, then transmit queues: as QUEUE_SELECT and the doorbells number them. */
  readonly queues: readonly Queue[];
  readonly link: Link;
  readonly refusals = new Refusals();
  running: Generation;
  /** The generation that is to replace the running one. */
  wanted: Generation | null = null;
  /** After a crash in the middle of a replacement: the set that the guest has agreed to. */
  prepared: Generation | null = null;
  readonly upgrade: Upgrade = new Upgrade(this);
  state = newNicState();
  host: NicHost | null = null;
  step: HandshakeStep = "no guest";
  resets = 0;
  /** The guest gets the packets that its driver asks for (ability FILTER); false: all. */
  filtered = true;
  /** A driver has read what depends on the set: it must learn that another one takes its place. */
  setRead = false;
  #memoryGeneration = 0;
  #steeringFor: RssState | null = null;
  #steeringMade: Steering | null = null;

  /** @throws ConfigError */
  constructor(config: NicConfig, pairs: readonly QueuePair[]) {
    checkConfig(config);
    this.config = config;
    this.pairs = pairs;
    this.queues = [...pairs.map(({ rx }) => rx), ...pairs.map(({ tx }) => tx)];
    this.link = new Link(pairs, config.mtu, () => this.raise(EVENT.LINK_OR_MTU));
    const { device: format, rxBufs, txBufs } = config;
    const features = offeredFeatures(config);
    this.running = new Generation({ id: 1, format, rxBufs, txBufs, features });
    for (const pair of pairs) this.running.configure(pair);
  }

  /** Gives the NIC its programs; no guest may be attached before. */
  ship(sets: ProgramSets): void {
    this.running.ship(sets);
  }

  /* What the guest sees */

  get form(): ProgramForm {
    return this.state.abilities & ABILITY.HELPERFREE ? "helperfree" : "v1";
  }

  get rxEnabled(): boolean {
    return this.pairs.every(({ rx }) => rx.enabled);
  }

  get txEnabled(): boolean {
    return this.pairs.every(({ tx }) => tx.enabled);
  }

  get enabled(): boolean {
    return this.rxEnabled || this.txEnabled;
  }

  get status(): number {
    return (
      (this.link.up ? STATUS.LINK : 0) |
      (this.state.upgradePending ? STATUS.UPGRADE : 0) |
      (this.rxEnabled ? STATUS.RX_ENABLED : 0) |
      (this.txEnabled ? STATUS.TX_ENABLED : 0)
    );
  }

  /* What the guest does */

  #queuesOf(direction: "RX" | "TX"): readonly Queue[] {
    return this.pairs.map(({ rx, tx }) => (direction === "RX" ? rx : tx));
  }

  enable(direction: "RX" | "TX"): void {
    const queues = this.#queuesOf(direction);
    if (!queues.every(({ registered }) => registered)) {
      const message = `${direction} enable without all ${direction} contexts`;
      return this.refusals.add("enable", message);
    }
    for (const queue of queues) queue.enable(this.ringSettings);
    if (this.rxEnabled && this.txEnabled) this.step = "enabled";
  }

  /** Both directions stop if the guest has agreed to a replacement: its rings are of two sets. */
  disable(direction: "RX" | "TX"): void {
    const both = this.upgrade.agreed;
    const queues = both ? this.queues : this.#queuesOf(direction);
    if (both || direction === "TX") {
      for (const pair of this.pairs) drainTransmit(pair, STOP_DRAIN_MS);
    }
    for (const queue of queues) queue.disable();
    this.upgrade.stopped("the guest disabled the NIC");
  }

  /** Sets an event bit and raises the last vector, if the driver acknowledged events. */
  raise(event: number): void {
    if (!(this.state.abilities & ABILITY.EVENT)) return;
    this.state.events |= event;
    this.host?.fire(this.queues.length);
  }

  /** As the original raises it: drivers without events have the vector only. */
  raiseUpgrade(): void {
    if (this.state.abilities & ABILITY.EVENT) this.raise(EVENT.STAGED);
    else this.host?.fire(this.queues.length);
  }

  /** Gives the queues what the driver set: receive filter, coalescing. */
  useSettings(): void {
    const filter = this.filtered ? receiveFilter(this.state) : null;
    const steering = this.#steering();
    const { rx, tx } = coalescing(this.state);
    for (const pair of this.pairs) {
      pair.setReceive(filter, steering, this.pairs);
      pair.rxCoalescer.set(rx.us, rx.adaptive);
      pair.txCoalescer.set(tx.us, tx.adaptive);
    }
  }

  /** Made anew only if the settings have changed: its tables cost time. */
  #steering(): Steering | null {
    const { rss, abilities } = this.state;
    if (!(abilities & ABILITY.RSS)) return null;
    if (this.#steeringFor !== rss) this.#steeringMade = steeringOf(rss);
    this.#steeringFor = rss;
    return this.#steeringMade;
  }

  /* What the machine does */

  attach(host: NicHost): void {
    this.host = host;
    this.refusals.forgetMessages();
    this.step = "guest attached";
  }

  detach(): void {
    this.reset();
    this.host = null;
    this.step = "no guest";
  }

  /** Device reset: full stop, every register as at power-on. */
  reset(): void {
    this.resets++;
    for (const queue of this.queues) queue.disable();
    this.upgrade.stopped("the NIC was reset");
    for (const queue of this.queues) queue.forget();
    this.upgrade.taken("the NIC was reset");
    this.upgrade.view = 0;
    this.setRead = false;
    const { busMaster } = this.state;
    this.state = { ...newNicState(), busMaster };
    this.useSettings();
    if (this.host !== null) this.step = "guest attached";
  }

  busMasterChanged(enabled: boolean): void {
    this.state.busMaster = enabled;
    for (const queue of this.queues) {
      if (enabled) queue.attach(this.ringSettings);
      else queue.detach();
    }
  }

  /** Serves the queues that were restored (persist.ts). */
  serve(): void {
    for (const queue of this.queues) queue.attach(this.ringSettings);
  }

  /** Call after messages of the VMM: its memory map may have changed. */
  memoryChanged(): void {
    if (this.host === null || this.host.memory.generation === this.#memoryGeneration) return;
    const { memory } = this.host;
    this.#memoryGeneration = memory.generation;
    for (const queue of this.queues) queue.memoryChanged(memory, this.ringSettings);
  }

  /** Guest memory; null while the NIC may not use it. */
  get memory(): GuestMemory | null {
    return this.host !== null && this.state.busMaster ? this.host.memory : null;
  }

  get ringSettings(): RingSettings | null {
    const { memory } = this;
    if (memory === null) return null;
    return { memory, features: this.state.selectedFeatures, mtu: this.config.mtu };
  }
}

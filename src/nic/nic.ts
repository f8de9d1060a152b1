/**
 * The bpfhv device model: registers, doorbells, programs, contexts. It knows nothing of the VMM
 * that carries its accesses (see src/frontends) and nothing of ring formats (see src/devices).
 *
 * Nothing a guest writes may do more than make its own card useless: what is not understood is
 * ignored and counted in `refused`.
 */
import {
  ABILITY,
  BAR_DOORBELLS,
  BAR_PROGRAM,
  BAR_PROGRAM_SIZE,
  BAR_REGISTERS,
  BAR_REGISTERS_SIZE,
  buildBlob,
  CTRL,
  EVENT,
  type ProgramForm,
  type ProgramId,
  type ProgramSet,
  STATUS,
} from "../abi/index.ts";
import type { ProgramSets } from "../devices/program-set.ts";
import { type MappedContext, mapContiguous, mapPageList } from "../engine/contexts.ts";
import { drainTransmit } from "../engine/drain.ts";
import type { QueuePair } from "../engine/pair.ts";
import type { Queue } from "../engine/queue.ts";
import type { RingSettings } from "../engine/registered-ring.ts";
import { type GuestMemory, whyRefused, writeGuest } from "../memory/index.ts";
import { checkConfig, MIN_MTU, type NicConfig } from "./config.ts";
import { readRegister, writeRegister } from "./registers.ts";
import { type NicState, newNicState } from "./state.ts";

/** What this NIC can do beyond version 1. Not offered yet: OVERLAP. */
export const OFFERED_ABILITIES =
  ABILITY.BLOB |
  ABILITY.EVENT |
  ABILITY.GEOMETRY |
  ABILITY.HELPERFREE |
  ABILITY.CTX_PAGES |
  ABILITY.QUEUE_PAIRS;

/** A guest's CPU stands still while the NIC stops: the port gets what it takes at once. */
const STOP_DRAIN_MS = 0;

/** What the NIC may do to its machine. */
export interface NicHost {
  readonly memory: GuestMemory;
  /** Raises an MSI-X vector. */
  fire(vector: number): void;
}

/** How far the guest's driver got: what `status` says when there is no traffic. */
export type HandshakeStep =
  | "no guest"
  /** Something has connected, and not said yet that it is a VMM. */
  | "client connected"
  | "guest attached"
  | "driver found the device"
  | "programs fetched"
  | "contexts registered"
  | "enabled";

export class Nic {
  readonly config: NicConfig;
  readonly pairs: readonly QueuePair[];
  /** Receive queues, then transmit queues: as QUEUE_SELECT and the doorbells number them. */
  readonly queues: readonly Queue[];
  state: NicState;
  host: NicHost | null = null;
  /** Accesses and requests of the guest that made no sense, by reason. */
  readonly refused = {
    register: 0,
    doorbell: 0,
    programWindow: 0,
    context: 0,
    blob: 0,
    features: 0,
    enable: 0,
  };
  /** Of the guest that is attached, or was: the cause, and what followed from it. */
  firstRefusal = "";
  lastRefusal = "";
  /** The last one of each reason. */
  readonly refusals: Partial<Record<keyof Nic["refused"], string>> = {};
  step: HandshakeStep = "no guest";
  resets = 0;
  #sets: ProgramSets | null = null;
  readonly #blobs = new Map<ProgramForm, Uint8Array>();
  #linkWasUp = false;
  #mtu: number;
  #memoryGeneration = 0;

  /** @throws ConfigError */
  constructor(config: NicConfig, pairs: readonly QueuePair[]) {
    checkConfig(config);
    this.config = config;
    this.#mtu = config.mtu;
    this.pairs = pairs;
    this.queues = [...pairs.map(({ rx }) => rx), ...pairs.map(({ tx }) => tx)];
    const { device, rxBufs, txBufs } = config;
    for (const { rx, tx } of pairs) {
      rx.configure(device, rxBufs);
      tx.configure(device, txBufs);
    }
    this.state = newNicState();
  }

  /** Gives it what it ships; until then it must not be attached. */
  ship(sets: ProgramSets): void {
    this.#sets = sets;
    this.#blobs.clear();
  }

  /** Does it have what it ships? */
  get canAttach(): boolean {
    return this.#sets !== null;
  }

  /* What the guest sees */

  get programs(): ProgramSet {
    if (this.#sets === null) throw new Error("the NIC has nothing to ship yet");
    return this.#sets[this.state.abilities & ABILITY.HELPERFREE ? "helperfree" : "v1"];
  }

  get blob(): Uint8Array {
    const set = this.programs;
    let blob = this.#blobs.get(set.form);
    if (blob === undefined) {
      blob = buildBlob(set, this.state.generation);
      this.#blobs.set(set.form, blob);
    }
    return blob;
  }

  get linkUp(): boolean {
    return this.pairs.every(({ port, rx }) => port.linkUp && rx.registered);
  }

  get status(): number {
    const { rxEnabled, txEnabled } = this;
    return (
      (this.linkUp ? STATUS.LINK : 0) |
      (this.state.upgradePending ? STATUS.UPGRADE : 0) |
      (rxEnabled ? STATUS.RX_ENABLED : 0) |
      (txEnabled ? STATUS.TX_ENABLED : 0)
    );
  }

  get rxEnabled(): boolean {
    return this.pairs.every(({ rx }) => rx.enabled);
  }

  get txEnabled(): boolean {
    return this.pairs.every(({ tx }) => tx.enabled);
  }

  /** Sizes of the BARs that the NIC itself serves; powers of two. */
  get bars(): { readonly index: number; readonly size: number }[] {
    const doorbells = 2 * this.config.pairs * this.config.doorbellSize;
    return [
      { index: BAR_REGISTERS, size: BAR_REGISTERS_SIZE },
      { index: BAR_DOORBELLS, size: Math.max(4096, 2 ** Math.ceil(Math.log2(doorbells))) },
      { index: BAR_PROGRAM, size: BAR_PROGRAM_SIZE },
    ];
  }

  /** An access of 1, 2 or 4 bytes inside the BAR, at any alignment. */
  read(bar: number, offset: number, size: number): number {
    if (bar === BAR_REGISTERS) return this.#readRegisters(offset, size);
    if (bar === BAR_PROGRAM) return this.#readProgram(offset, size);
    this.refuse("doorbell", `doorbell at ${offset} was read: doorbells are written`);
    return 0;
  }

  /** An access of 1, 2 or 4 bytes inside the BAR, at any alignment. */
  write(bar: number, offset: number, size: number, value: number): void {
    if (bar === BAR_REGISTERS) {
      if (size === 4 && offset % 4 === 0) writeRegister(this, offset, value >>> 0);
      else
        this.refuse("register", `write of ${size} bytes to register ${hex(offset)}: 4 are needed`);
    } else if (bar === BAR_DOORBELLS) {
      this.#ring(Math.floor(offset / this.config.doorbellSize));
    } else {
      this.refuse(
        "programWindow",
        `write to the program window at ${hex(offset)}: it is read only`,
      );
    }
  }

  /** Narrow reads give the bytes of the register that they lie in; none crosses into the next. */
  #readRegisters(offset: number, size: number): number {
    const within = offset % 4;
    const value = readRegister(this, offset - within) >>> (8 * within);
    return size === 4 ? value >>> 0 : value & (size === 2 ? 0xffff : 0xff);
  }

  #readProgram(offset: number, size: number): number {
    const code = this.programs.code.get(this.state.programSelect as ProgramId);
    if (code === undefined) return 0;
    let value = 0;
    for (let i = size - 1; i >= 0; i--) value = value * 256 + (code[offset + i] ?? 0);
    return value;
  }

  #ring(index: number): void {
    const queue = this.queues[index];
    if (queue !== undefined) queue.kicked();
    else this.refuse("doorbell", `doorbell of queue ${index} of ${this.queues.length}`);
  }

  /* What registers do */

  refuse(reason: keyof Nic["refused"], message: string): void {
    this.refused[reason]++;
    if (this.firstRefusal === "") this.firstRefusal = message;
    this.lastRefusal = message;
    this.refusals[reason] = message;
  }

  /** Unregisters the selected queue's context and, unless `address` is 0, registers a new one. */
  setContext(
    address: number,
    map: (memory: GuestMemory, address: number, size: number) => MappedContext | string,
  ): void {
    const index = this.state.queueSelect;
    const queue = this.queues[index];
    this.#unregister(queue);
    if (address === 0) return this.#linkChanged();
    const context = this.#mayUseMemory()
      ? map(this.host!.memory, address, queue.contextSize)
      : "may not be used: bus mastering is off";
    if (typeof context === "string") {
      const where = `0x${address.toString(16)}`;
      this.refuse("context", `context of queue ${index} at ${where} ${context}`);
      return this.#linkChanged();
    }
    queue.register(context);
    if (this.queues.every(({ registered }) => registered)) this.reached("contexts registered");
    this.#linkChanged();
  }

  setContiguousContext(address: number): void {
    this.setContext(address, mapContiguous);
  }

  setContextPages(list: number): void {
    this.setContext(list, mapPageList);
  }

  #unregister(queue: Queue): void {
    if (!queue.registered) return;
    queue.forget();
    // A direction is enabled only while all its queues have contexts.
    if (queue.direction === "rx" && this.rxEnabled) this.setRxEnabled(false);
    if (queue.direction === "tx" && this.txEnabled) this.setTxEnabled(false);
  }

  /** Writes the viewed set's blob to guest memory. */
  deliverBlob(address: number): void {
    const { blob } = this;
    if (!this.#mayUseMemory()) return this.refuse("blob", "blob asked for without bus mastering");
    const { memory } = this.host!;
    if (writeGuest(memory, address, blob)) return this.reached("programs fetched");
    const why = whyRefused(memory, address, blob.length, true);
    this.refuse("blob", `blob address 0x${address.toString(16)}: ${why}`);
  }

  /** Commands of CTRL, in the order that the ABI gives. */
  control(bits: number): void {
    const { rxEnabled, txEnabled } = this;
    if (bits & CTRL.RX_ENABLE && !rxEnabled) this.setRxEnabled(true);
    if (bits & CTRL.RX_DISABLE && rxEnabled) this.setRxEnabled(false);
    if (bits & CTRL.TX_ENABLE && !txEnabled) this.setTxEnabled(true);
    if (bits & CTRL.TX_DISABLE && txEnabled) this.setTxEnabled(false);
    if (bits & CTRL.UPGRADE_READY) this.state.upgradePending = false;
    if (bits & CTRL.QUEUES_DUMP) this.#takeDump();
  }

  setRxEnabled(enable: boolean): void {
    const queues = this.pairs.map(({ rx }) => rx);
    if (enable) this.#enable("RX", queues);
    else for (const queue of queues) queue.disable();
  }

  setTxEnabled(enable: boolean): void {
    const queues = this.pairs.map(({ tx }) => tx);
    if (enable) return this.#enable("TX", queues);
    for (const pair of this.pairs) {
      drainTransmit(pair, STOP_DRAIN_MS);
      pair.tx.disable();
    }
  }

  #enable(direction: string, queues: readonly Queue[]): void {
    if (!queues.every(({ registered }) => registered)) {
      return this.refuse("enable", `${direction} enable without all ${direction} contexts`);
    }
    for (const queue of queues) queue.enable(this.#ringSettings());
    if (this.rxEnabled && this.txEnabled) this.reached("enabled");
  }

  reached(step: HandshakeStep): void {
    this.step = step;
  }

  #takeDump(): void {
    const lines = this.pairs.flatMap(({ rx, tx }) => [...rx.dump(), ...tx.dump()]);
    this.state.dump = `${lines.join("\n")}\n`;
    // The offset is inside the dump, always: this one may be shorter.
    this.state.dumpOffset = 0;
  }

  /* Rings come and go with enabling, bus mastering and memory */

  #ringSettings(): RingSettings | null {
    if (this.host === null || !this.state.busMaster) return null;
    const { memory } = this.host;
    return { memory, features: this.state.selectedFeatures, mtu: this.config.mtu };
  }

  #mayUseMemory(): boolean {
    return this.host !== null && this.state.busMaster;
  }

  /* What the machine does to the NIC */

  attach(host: NicHost): void {
    this.host = host;
    this.firstRefusal = "";
    this.lastRefusal = "";
    this.reached("guest attached");
  }

  detach(): void {
    this.reset();
    this.host = null;
    this.step = "no guest";
  }

  /** Device reset: full stop, every register as at power-on. */
  reset(): void {
    this.resets++;
    for (const queue of this.queues) {
      queue.disable();
      queue.forget();
    }
    const { busMaster } = this.state;
    this.state = newNicState();
    this.state.busMaster = busMaster;
    if (this.host !== null) this.step = "guest attached";
  }

  busMasterChanged(enabled: boolean): void {
    this.state.busMaster = enabled;
    for (const queue of this.queues) {
      if (enabled) queue.attach(this.#ringSettings());
      else queue.detach();
    }
  }

  /** The guest's memory map may have changed. */
  memoryChanged(): void {
    if (this.host === null || this.host.memory.generation === this.#memoryGeneration) return;
    const { memory } = this.host;
    this.#memoryGeneration = memory.generation;
    for (const queue of this.queues) queue.memoryChanged(memory, this.#ringSettings());
  }

  /** Looks whether the port's link changed, and tells the guest. */
  followLink(): void {
    if (this.linkUp !== this.#linkWasUp) this.#linkChanged();
  }

  /**
   * @returns why the MTU stays as it is: no more than the guest's
   * buffers were made for; null if it is set
   */
  setMtu(mtu: number): string | null {
    const most = this.config.mtu;
    if (!Number.isInteger(mtu) || mtu < MIN_MTU || mtu > most) {
      return `MTU ${mtu}: use ${MIN_MTU} to ${most}, which the NIC was started with`;
    }
    if (mtu === this.#mtu) return null;
    this.#mtu = mtu;
    this.raise(EVENT.LINK_OR_MTU);
    return null;
  }

  get mtu(): number {
    return this.#mtu;
  }

  #linkChanged(): void {
    const up = this.linkUp;
    if (up === this.#linkWasUp) return;
    this.#linkWasUp = up;
    this.raise(EVENT.LINK_OR_MTU);
  }

  /** Sets an event bit and raises the last vector, where the driver asked for events. */
  raise(event: number): void {
    if (!(this.state.abilities & ABILITY.EVENT)) return;
    this.state.events |= event;
    this.host?.fire(2 * this.config.pairs);
  }
}

function hex(value: number): string {
  return `0x${value.toString(16)}`;
}

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
import type { RxRing, TxRing } from "../devices/format.ts";
import type { ProgramSets } from "../devices/program-set.ts";
import type { QueuePair } from "../engine/pair.ts";
import { type GuestMemory, whyRefused, writeGuest } from "../memory/index.ts";
import { longestReceived, receiveOffloads } from "../memory/offloads.ts";
import { checkConfig, MIN_MTU, type NicConfig } from "./config.ts";
import {
  type MappedContext,
  mapContiguous,
  mapPageList,
  releaseContext,
  stillThere,
} from "./contexts.ts";
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
  readonly #contexts: (MappedContext | null)[];
  #linkWasUp = false;
  #mtu: number;
  #memoryGeneration = 0;
  /** By queue: its context is not where it was, so its ring stands still until it is back. */
  readonly #absent: boolean[];

  /** @throws ConfigError */
  constructor(config: NicConfig, pairs: readonly QueuePair[]) {
    checkConfig(config);
    this.config = config;
    this.#mtu = config.mtu;
    this.pairs = pairs;
    this.state = newNicState(config.pairs);
    this.#contexts = this.state.queues.map(() => null);
    this.#absent = this.state.queues.map(() => false);
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
    const { pairs } = this.config;
    return (
      this.pairs.every((pair) => pair.port.linkUp) &&
      this.state.queues.slice(0, pairs).every((queue) => queue.context !== null)
    );
  }

  get status(): number {
    const { rxEnabled, txEnabled, upgradePending } = this.state;
    return (
      (this.linkUp ? STATUS.LINK : 0) |
      (upgradePending ? STATUS.UPGRADE : 0) |
      (rxEnabled ? STATUS.RX_ENABLED : 0) |
      (txEnabled ? STATUS.TX_ENABLED : 0)
    );
  }

  contextSize(queue: number): number {
    const { device, pairs, rxBufs, txBufs } = this.config;
    return device.contextSize(queue < pairs ? rxBufs : txBufs);
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

  #ring(queue: number): void {
    const { pairs } = this.config;
    if (queue >= 2 * pairs) this.refuse("doorbell", `doorbell of queue ${queue} of ${2 * pairs}`);
    else if (queue < pairs) this.pairs[queue].kicked(false);
    else this.pairs[queue - pairs].kicked(true);
  }

  /* What registers do */

  refuse(reason: keyof Nic["refused"], message: string): void {
    this.refused[reason]++;
    if (this.firstRefusal === "") this.firstRefusal = message;
    this.lastRefusal = message;
    this.refusals[reason] = message;
  }

  /** Forgets the queue's context and, where `map` finds a new one, takes it and initialises it. */
  setContext(
    address: number,
    map: (memory: GuestMemory, address: number, size: number) => MappedContext | string,
  ): void {
    const queue = this.state.queueSelect;
    this.#dropContext(queue);
    if (address === 0) return this.#linkChanged();
    const context = this.#mayUseMemory()
      ? map(this.host!.memory, address, this.contextSize(queue))
      : "may not be used: bus mastering is off";
    if (typeof context === "string") {
      const where = `0x${address.toString(16)}`;
      this.refuse("context", `context of queue ${queue} at ${where} ${context}`);
      return this.#linkChanged();
    }
    const receive = queue < this.config.pairs;
    const { device, rxBufs, txBufs } = this.config;
    device.initialise(receive ? "rx" : "tx", context.words, receive ? rxBufs : txBufs);
    this.#contexts[queue] = context;
    this.state.queues[queue] = { context: context.record, position: 0 };
    if (this.#contexts.every((c) => c !== null)) this.reached("contexts registered");
    this.#linkChanged();
  }

  setContiguousContext(address: number): void {
    this.setContext(address, mapContiguous);
  }

  setContextPages(list: number): void {
    this.setContext(list, mapPageList);
  }

  #dropContext(queue: number): void {
    const { pairs } = this.config;
    const context = this.#contexts[queue];
    this.#detachRing(queue);
    this.#forgetContext(queue);
    this.state.queues[queue] = { context: null, position: 0 };
    // A direction without all its contexts is not enabled.
    if (context !== null && queue < pairs && this.state.rxEnabled) this.setRxEnabled(false);
    if (context !== null && queue >= pairs && this.state.txEnabled) this.setTxEnabled(false);
  }

  /** From here on nothing touches its memory. Its ring is detached. */
  #forgetContext(queue: number): void {
    releaseContext(this.#contexts[queue]);
    this.#contexts[queue] = null;
    this.#absent[queue] = false;
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
    const { rxEnabled, txEnabled } = this.state;
    if (bits & CTRL.RX_ENABLE && !rxEnabled) this.setRxEnabled(true);
    if (bits & CTRL.RX_DISABLE && rxEnabled) this.setRxEnabled(false);
    if (bits & CTRL.TX_ENABLE && !txEnabled) this.setTxEnabled(true);
    if (bits & CTRL.TX_DISABLE && txEnabled) this.setTxEnabled(false);
    if (bits & CTRL.UPGRADE_READY) this.state.upgradePending = false;
    if (bits & CTRL.QUEUES_DUMP) this.#takeDump();
  }

  setRxEnabled(enable: boolean): void {
    if (!enable) {
      this.state.rxEnabled = false;
      for (let q = 0; q < this.config.pairs; q++) this.#detachRing(q);
      return;
    }
    if (!this.#allContexts(0)) return this.refuse("enable", "RX enable without all RX contexts");
    this.state.rxEnabled = true;
    for (let q = 0; q < this.config.pairs; q++) this.#attachFresh(q);
    this.#enabled();
  }

  setTxEnabled(enable: boolean): void {
    const { pairs } = this.config;
    if (!enable) {
      // Published packets go out, as far as the port takes them: one ring is the bound.
      for (const pair of this.pairs) {
        pair.endRest();
        for (let n = 0; n < this.config.txBufs; ) {
          const sent = pair.drainTx();
          if (sent === 0) break;
          n += sent;
        }
      }
      this.state.txEnabled = false;
      for (let q = pairs; q < 2 * pairs; q++) this.#detachRing(q);
      return;
    }
    if (!this.#allContexts(pairs))
      return this.refuse("enable", "TX enable without all TX contexts");
    this.state.txEnabled = true;
    for (let q = pairs; q < 2 * pairs; q++) this.#attachFresh(q);
    this.#enabled();
  }

  #enabled(): void {
    if (this.state.rxEnabled && this.state.txEnabled) this.reached("enabled");
  }

  #allContexts(from: number): boolean {
    return this.#contexts.slice(from, from + this.config.pairs).every((c) => c !== null);
  }

  reached(step: HandshakeStep): void {
    this.step = step;
  }

  #takeDump(): void {
    const lines = this.pairs.flatMap(({ rx, tx }) => [rx?.dump(), tx?.dump()]);
    this.state.dump = `${lines.filter((line) => line !== undefined).join("\n")}\n`;
    // The offset is inside the dump, always: this one may be shorter.
    this.state.dumpOffset = 0;
  }

  /* Rings come and go with enabling, bus mastering and memory */

  /**
   * The guest has just enabled the direction, and may have reclaimed before. It may take a while
   * until the ring can be attached. A rest was the answer to what the last driver published.
   */
  #attachFresh(queue: number): void {
    this.state.queues[queue].position = null;
    this.pairs[queue % this.config.pairs].endRest();
    this.#attachRing(queue);
  }

  #attachRing(queue: number): void {
    const { pairs, device, rxBufs, txBufs } = this.config;
    const context = this.#contexts[queue];
    if (context === null || this.#absent[queue]) return;
    if (!this.state.busMaster || this.host === null) return;
    const receive = queue < pairs;
    const pair = this.pairs[receive ? queue : queue - pairs];
    const { selectedFeatures } = this.state;
    if (receive) pair.setReceiveOffloads(receiveOffloads(selectedFeatures));
    const options = {
      context: context.words,
      memory: this.host.memory,
      features: selectedFeatures,
      maxPacket: longestReceived(selectedFeatures, this.config.mtu),
      bufs: receive ? rxBufs : txBufs,
      counters: receive ? pair.rxCounters : pair.txCounters,
    };
    const ring = receive ? device.rx(options) : device.tx(options);
    const { position } = this.state.queues[queue];
    if (position === null) ring.resync();
    else ring.restore(position);
    if (receive) {
      pair.rx = ring as RxRing;
      pair.rxStarved = false;
    } else {
      pair.tx = ring as TxRing;
      // Whether the port still blocks is found out by trying.
      pair.portWritable();
    }
  }

  /**
   * From here on nothing touches the queue's context: there is never I/O in flight between turns.
   */
  #detachRing(queue: number): void {
    const { pairs } = this.config;
    const pair = this.pairs[queue < pairs ? queue : queue - pairs];
    const ring = queue < pairs ? pair.rx : pair.tx;
    if (ring === null) return;
    this.state.queues[queue].position = ring.save();
    if (queue < pairs) pair.rx = null;
    else pair.tx = null;
  }

  #attachAll(): void {
    const { pairs } = this.config;
    for (let q = 0; q < 2 * pairs; q++) {
      if (q < pairs ? this.state.rxEnabled : this.state.txEnabled) this.#attachRing(q);
    }
  }

  #detachAll(): void {
    for (let q = 0; q < this.state.queues.length; q++) this.#detachRing(q);
  }

  /**
   * Returns when no I/O into guest memory of the queue is in
   * flight; none will begin before `resume`.
   */
  quiesce(queue: number): void {
    this.#detachRing(queue);
  }

  resume(queue: number): void {
    const enabled = queue < this.config.pairs ? this.state.rxEnabled : this.state.txEnabled;
    if (enabled) this.#attachRing(queue);
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
    this.#detachAll();
    for (let q = 0; q < this.#contexts.length; q++) this.#forgetContext(q);
    const { busMaster } = this.state;
    this.state = newNicState(this.config.pairs);
    this.state.busMaster = busMaster;
    if (this.host !== null) this.step = "guest attached";
  }

  busMasterChanged(enabled: boolean): void {
    this.state.busMaster = enabled;
    if (enabled) this.#attachAll();
    else this.#detachAll();
  }

  /**
   * The memory map has changed: queues whose context is not where it was stand still until it is
   * back. (Firmware remaps low memory in several steps while a guest runs.)
   */
  memoryChanged(): void {
    if (this.host === null || this.host.memory.generation === this.#memoryGeneration) return;
    const { memory } = this.host;
    this.#memoryGeneration = memory.generation;
    for (const [queue, context] of this.#contexts.entries()) {
      const absent = context !== null && !stillThere(memory, context);
      if (absent === this.#absent[queue]) continue;
      this.#absent[queue] = absent;
      if (absent) this.#detachRing(queue);
      else this.resume(queue);
    }
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

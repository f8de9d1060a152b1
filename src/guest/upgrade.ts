/**
 * The driver's half of replacing a set while packets flow (ability OVERLAP), one step at a time, so
 * that packets can be sent and received between any two:
 *
 *     idle -> stage -> prime -> cut -> drain -> idle
 *
 * Up to the host's `go` the driver can drop the next rings, and nothing has changed.
 */
import { ANSWER, type ProgramSet, Q_CMD, REG, VERDICT } from "../abi/index.ts";
import { GuestError } from "./errors.ts";
import type { Registers } from "./registers.ts";
import type { Registration, RingPlaces } from "./registration.ts";

/** The driver's rings, receive queues first: what a cut exchanges. */
export interface RingTable {
  readonly registrations: Registration[];
  readonly pairs: number;
  features: number;
  generation: number;
  programs: ProgramSet;
  /** Makes a ring the one that the driver publishes to. */
  use(queue: number, registration: Registration): void;
  /** Publishes all free buffers of a receive ring. */
  fill(queue: number, registration: Registration): void;
}

export interface Judgement {
  /** VERDICT */
  readonly code: number;
  readonly info: number;
}

export interface GuestUpgradeOptions {
  readonly table: RingTable;
  readonly registers: Registers;
  readonly places: RingPlaces;
  /** Feature bits to select from an offer. */
  readonly wanted: number;
  readonly bufferSize: number;
}

interface Parked {
  readonly frame: Uint8Array;
  readonly metadata: Uint8Array;
}

/** A queue's ring that is being replaced. */
export interface OldRing extends Registration {
  /** The host touches it no more. */
  drained: boolean;
  /** The driver has taken all of it. */
  empty: boolean;
  /** The first packet of the new ring, until the old one is empty. */
  parked: Parked | null;
}

export class GuestUpgrade {
  phase: "idle" | "stage" | "prime" | "cut" | "drain" = "idle";
  /** Of each queue; null: it has one ring. */
  readonly old: (OldRing | null)[];
  /** Judges programs as a kernel's verifier does. */
  judge: (programs: ProgramSet) => Judgement = () => ({ code: VERDICT.READY, info: 0 });
  /** Sets taken, and dropped before the driver used them. */
  readonly counters = { taken: 0, dropped: 0 };
  readonly #options: GuestUpgradeOptions;
  readonly #next: Registration[] = [];
  #id = 0;
  #features = 0;
  #programs: ProgramSet;
  #at = 0;

  constructor(options: GuestUpgradeOptions) {
    this.#options = options;
    this.#programs = options.table.programs;
    this.old = options.table.registrations.map(() => null);
  }

  /** Takes one step. @returns false if there is nothing to do */
  step(): boolean {
    switch (this.phase) {
      case "idle":
        return this.#begin();
      case "stage":
        return this.#stage();
      case "prime":
        return this.#prime();
      case "cut":
        return this.#cut();
      default:
        return this.#drain();
    }
  }

  #begin(): boolean {
    this.#id = this.#options.registers.read(REG.SET_NEXT);
    if (this.#id === 0) return false;
    this.phase = "stage";
    this.#at = 0;
    return true;
  }

  /** First everything that the registers say of the set, then one ring at a time. */
  #stage(): boolean {
    const { registers, table, places } = this.#options;
    registers.writeSync(REG.SET_VIEW, 1);
    // Another set may be staged by now: registers of that one would be read for this one.
    if (registers.read(REG.SET_NEXT) !== this.#id) return this.#drop();
    if (this.#at === 0) this.#look();
    else {
      const queue = this.#at - 1;
      const ring = this.#make(queue);
      this.#next.push(ring);
      places.register(queue, ring);
      ring.ring.warm();
    }
    registers.writeSync(REG.SET_VIEW, 0);
    if (this.#at++ === table.registrations.length) this.#judge();
    return true;
  }

  #look(): void {
    const { registers, wanted } = this.#options;
    this.#features = registers.read(REG.OFFERED) & wanted;
    registers.writeSync(REG.FEATURES, this.#features);
    this.#programs = registers.fetchBlob();
  }

  #make(queue: number): Registration {
    const { places, bufferSize, table } = this.#options;
    const direction = queue < table.pairs ? "rx" : "tx";
    const set = { programs: this.#programs, generation: this.#id };
    return places.make({ direction, bufferSize, ...set });
  }

  #judge(): void {
    const { code, info } = this.judge(this.#programs);
    this.phase = "prime";
    this.#at = 0;
    if (code === VERDICT.READY) return;
    this.#options.registers.write(REG.VERDICT_INFO, info);
    this.#verdict(code);
    this.#drop();
  }

  #verdict(code: number): void {
    this.#options.registers.writeSync(REG.SET_VERDICT, this.#id * 256 + code);
  }

  /** Fills the next receive rings, one at a time, then tells the host. */
  #prime(): boolean {
    const { registers, table } = this.#options;
    if (this.#at < table.pairs) {
      table.fill(this.#at, this.#next[this.#at]);
      this.#at++;
      return true;
    }
    this.#verdict(VERDICT.READY);
    const staged = registers.read(REG.SET_NEXT) === this.#id;
    if (!staged || registers.read(REG.SET_VERDICT) !== ANSWER.GO) return this.#drop();
    // What the next set lacks must be in no packet that is sent to it.
    table.features &= this.#features;
    this.phase = "cut";
    this.#at = 0;
    return true;
  }

  /** Transmit queues first: their packets wait for nobody. */
  #cut(): boolean {
    const { table, registers } = this.#options;
    const queues = table.registrations.length;
    const queue = (table.pairs + this.#at) % queues;
    const { [queue]: before } = table.registrations;
    const next = this.#next[queue];
    const command = queue < table.pairs ? Q_CMD.RX_CUT : Q_CMD.TX_CUT;
    if (command === Q_CMD.RX_CUT) {
      table.fill(queue, before);
      before.ring.arm(1);
      next.ring.arm(1);
      registers.writeSync(REG.Q_CMD, (command << 16) | queue);
    }
    this.old[queue] = { ...before, drained: false, empty: false, parked: null };
    table.use(queue, next);
    // Posted: the guest sends on, and the host finds what was published in the old ring before.
    if (command === Q_CMD.TX_CUT) registers.write(REG.Q_CMD, (command << 16) | queue);
    if (++this.#at < queues) return true;
    this.#next.length = 0;
    table.features = this.#features;
    table.generation = this.#id;
    table.programs = this.#programs;
    this.phase = "drain";
    return true;
  }

  #drain(): boolean {
    const { registers, places } = this.#options;
    const drained = registers.read(REG.Q_DRAINED);
    for (const [queue, old] of this.old.entries()) {
      if (old === null) continue;
      old.drained = (drained & (1 << queue)) !== 0;
      if (queue >= this.#options.table.pairs) this.clean(queue);
      if (!old.drained || !old.empty) continue;
      registers.writeSync(REG.Q_CMD, (Q_CMD.RETIRE << 16) | queue);
      places.release(old);
      this.old[queue] = null;
    }
    if (this.old.some((old) => old !== null)) return true;
    if (registers.read(REG.SET_CUR) !== this.#id)
      throw new GuestError(`all rings are retired, and set ${this.#id} is not the current one`);
    this.phase = "idle";
    this.counters.taken++;
    return true;
  }

  /** Reclaims transmit completions of the old ring. @returns packets */
  clean(queue: number): number {
    const old = this.old[queue];
    if (old === null) return 0;
    // Once the host is done with it, nothing is completed any more.
    const { drained } = old;
    let packets = 0;
    while (old.ring.collect(() => {}) > 0) packets++;
    old.empty = drained;
    return packets;
  }

  /** The next set is withdrawn, or refused: the rings in use are as they were. */
  #drop(): true {
    const { registers, places } = this.#options;
    registers.writeSync(REG.SET_VIEW, 0);
    for (const ring of this.#next.splice(0)) places.release(ring);
    this.phase = "idle";
    this.counters.dropped++;
    return true;
  }

  /**
   * The driver has disabled the NIC: before `go` the host has dropped the next set; after it, the
   * set is the current one. @returns packets that the host left in the old rings
   */
  stopped(): number {
    const { table, places } = this.#options;
    let left = 0;
    for (const [queue, old] of this.old.entries()) {
      if (old === null) continue;
      left += drop(old, queue >= table.pairs);
      places.release(old);
      this.old[queue] = null;
    }
    if (this.phase === "cut") {
      for (const [queue, before] of table.registrations.entries()) {
        const next = this.#next[queue];
        if (before === next) continue;
        left += drop(before, queue >= table.pairs);
        places.release(before);
        table.use(queue, next);
      }
      this.#next.length = 0;
      table.features = this.#features;
      table.generation = this.#id;
      table.programs = this.#programs;
    }
    if (this.phase === "cut" || this.phase === "drain") this.counters.taken++;
    else if (this.phase !== "idle") return this.#drop() && left;
    this.phase = "idle";
    return left;
  }
}

/** Reclaims everything from a ring. @returns packets that were not sent */
function drop({ ring }: Registration, transmit: boolean): number {
  while (ring.collect(() => {}) > 0);
  const left = ring.reclaim();
  return transmit ? left : 0;
}

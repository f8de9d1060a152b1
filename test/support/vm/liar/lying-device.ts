/**
 * Our NIC as a misbehaving PCI device.
 *
 * It never writes into guest memory that the guest has not given to it for that purpose,
 * or has reclaimed. A real host can, no driver can prevent it, and a test would show
 * nothing. So while rings or programs lie, no packet is received into buffers, and a
 * device that is "gone" accesses no memory.
 */
import { ABILITY, BAR_REGISTERS, buildBlob, CTRL, EVENT, REG } from "../../../../src/abi/index.ts";
import { nicAsPciDevice } from "../../../../src/frontends/vfio-user.ts";
import type { Batch } from "../../../../src/memory/index.ts";
import { ForwardingPort } from "../../../../src/net/forwarding.ts";
import type { Nic } from "../../../../src/nic/nic.ts";
import { viewAt } from "../../../../src/os/libc.ts";
import type { PciDevice } from "../../../../src/vfio-user/index.ts";
import { lyingSet } from "./lying-programs.ts";
import { MODE, MODES, type Mode, TOLD } from "./modes.ts";
import { flippedBlob, longBlob, refusableBlob, slowBlob } from "./program-lies.ts";
import type { Random } from "./random.ts";
import { REGISTER_LIES, type RegisterLie } from "./register-lies.ts";
import { scribble } from "./ring-lies.ts";

const ALL_ONES = 0xffffffff;
const ENABLE = CTRL.RX_ENABLE | CTRL.TX_ENABLE;
/** Period in milliseconds of lies that need no access by the guest. */
const TICK_MS = 4;
const UPGRADE_MS = 40;
/** One in this many reads is wrong in mode "random registers". */
const WRONG_READ = 24;

/**
 * If writes of these, or of a "stop", were lost, a NIC would use memory that the guest reclaimed.
 */
const ADDRESSING: ReadonlySet<number> = new Set<number>([
  REG.QUEUE_SELECT,
  REG.CTX_PADDR_LO,
  REG.CTX_PADDR_HI,
  REG.PAGES_LO,
  REG.BLOB_LO,
]);

export class Liar {
  readonly #nic: Nic;
  readonly #random: Random;
  readonly #shared: Int32Array;
  #register: RegisterLie | null = null;
  #blob: Uint8Array = new Uint8Array(0);
  #announced = 0;
  #tickedAt = 0;
  #upgradedAt = 0;
  #withholds = false;
  #isSlow = false;
  /** The guest's contexts or programs are wrong. */
  #ringsLie = false;
  #programsLie = false;

  constructor(nic: Nic, random: Random, shared: Int32Array) {
    this.#nic = nic;
    this.#random = random;
    this.#shared = shared;
  }

  get mode(): Mode {
    return MODES[Atomics.load(this.#shared, MODE)] ?? "honest";
  }

  /** True if packets may be written into the guest's buffers. */
  get mayReceive(): boolean {
    return !this.#ringsLie && !this.#programsLie;
  }

  told(mode: Mode, count = 1): void {
    Atomics.add(this.#shared, TOLD + MODES.indexOf(mode), count);
  }

  device(): PciDevice {
    const honest = nicAsPciDevice(this.#nic);
    return {
      ...honest,
      read: (bar, offset, size) => {
        const value = honest.read(bar, offset, size);
        return bar === BAR_REGISTERS && size === 4
          ? this.#read(offset, value)
          : this.#isSilent
            ? this.#allOnes()
            : value;
      },
      write: (bar, offset, size, low, high) => {
        if (bar === BAR_REGISTERS && this.#swallows(offset, low)) return;
        honest.write(bar, offset, size, low, high);
      },
    };
  }

  get #isSilent(): boolean {
    return this.mode === "gone" || this.mode === "unreachable";
  }

  #allOnes(): number {
    this.told(this.mode);
    return ALL_ONES;
  }

  #read(offset: number, value: number): number {
    const { mode } = this;
    if (this.#isSilent) return this.#allOnes();
    if (mode === "impossible registers") return this.#impossible(offset, value);
    if (mode === "no programs" && offset === REG.BLOB_LEN) {
      this.told(mode);
      return 0;
    }
    if (offset === REG.BLOB_LEN) value = this.#chooseBlob(mode);
    // Its upgrades are those of version 1: with OVERLAP the driver would wait for a staged set.
    if (offset === REG.EXT_OFFER) value &= ~ABILITY.OVERLAP;
    if (this.#withholds && (offset === REG.OFFERED || offset === REG.FEATURES)) return 0;
    if (mode !== "random registers" || !this.#random.oneIn(WRONG_READ)) return value;
    this.told(mode);
    this.#programsLie = true;
    const wrong = this.#random.word();
    if (offset === REG.BLOB_LEN) this.#announced = wrong;
    return wrong;
  }

  #impossible(offset: number, value: number): number {
    // The first read of a probe selects its lie.
    if (offset === REG.VERSION) {
      this.#register = this.#random.pick(REGISTER_LIES);
      this.told("impossible registers");
    }
    if (offset === REG.BLOB_LEN) value = this.#chooseBlob("impossible registers");
    const lie = this.#register;
    if (lie?.register !== offset || lie.value === "ignored") return value;
    if (offset === REG.BLOB_LEN) this.#announced = lie.value;
    return lie.value;
  }

  /** Selects a blob when the driver reads the length of the set that it fetches next. */
  #chooseBlob(mode: Mode): number {
    this.#programsLie = true;
    this.#blob = this.#blobFor(mode);
    this.#announced = this.#blob.length;
    return this.#announced;
  }

  #blobFor(mode: Mode): Uint8Array {
    const { running, form } = this.#nic;
    const programs = running.programs(form);
    const blob = running.blob(form);
    const random = this.#random;
    if (mode === "bad upgrades") {
      this.told(mode);
      mode = random.pick(["honest", "forbidden programs", "flipped programs", "lying programs"]);
    }
    switch (mode) {
      case "forbidden programs":
        this.told(mode);
        return refusableBlob(random, programs, running.id);
      case "long programs":
        this.told(mode);
        return longBlob(programs, running.id);
      case "slow programs":
        this.told(mode);
        this.#programsLie = false;
        return slowBlob(programs, running.id);
      case "flipped programs":
        this.told(mode);
        return flippedBlob(random, programs, running.id);
      case "lying programs":
        this.told(mode);
        return buildBlob(lyingSet(random, programs), running.id);
      case "impossible registers":
      case "random registers":
        return blob;
      default:
        this.#programsLie = false;
        return blob;
    }
  }

  #swallows(offset: number, value: number): boolean {
    const { mode } = this;
    if (this.#isSilent) return true;
    if (mode === "no enable" && offset === REG.CTRL && value & ENABLE) {
      this.told(mode);
      return true;
    }
    if (offset === REG.BLOB_HI) {
      const lost = mode === "impossible registers" && this.#register?.register === REG.BLOB_HI;
      if (!lost) this.#deliverBlob(value);
      return true;
    }
    if (mode !== "random registers" || !this.#random.oneIn(WRONG_READ)) return false;
    const stops = CTRL.RX_DISABLE | CTRL.TX_DISABLE;
    if (ADDRESSING.has(offset)) return false;
    if (offset === REG.CTRL && value & stops) return false;
    this.told(mode);
    return true;
  }

  /** Writes at most the announced length, for which the guest made room. */
  #deliverBlob(high: number): void {
    const { host, state } = this.#nic;
    const bytes = this.#blob.subarray(0, this.#announced);
    const address = high * 2 ** 32 + state.latches.BLOB.low;
    const at = host?.memory.translate(address, bytes.length, true) ?? 0;
    if (at !== 0) new Uint8Array(viewAt(at, bytes.length)).set(bytes);
  }

  /** Tells periodic lies. */
  tick(): void {
    const now = performance.now();
    if (now - this.#tickedAt < TICK_MS) return;
    this.#tickedAt = now;
    if (this.#nic.queues.every(({ registered }) => !registered)) this.#ringsLie = false;
    const { mode } = this;
    if (this.#withholds !== (mode === "no features")) {
      this.#withholds = !this.#withholds;
      this.told("no features");
      this.#announce();
    }
    if (this.#isSlow !== (mode === "slow programs")) {
      this.#isSlow = !this.#isSlow;
      if (this.#isSlow) this.#announce();
    }
    if (mode === "rings") this.#scribble();
    else if (mode === "lying programs") this.#interrupt();
    else if (mode === "interrupts") this.told(mode, this.#interrupt());
    else if (mode === "gone" && this.#nic.queues.some(({ registered }) => registered))
      this.#nic.reset();
    else if (mode === "upgrade storm" || mode === "bad upgrades") this.#upgrade(mode, now);
  }

  #scribble(): void {
    this.#ringsLie = true;
    if (scribble(this.#nic, this.#random)) this.told("rings");
    if (this.#random.oneIn(2)) this.#interrupt();
  }

  #interrupt(): number {
    const { host, config } = this.#nic;
    if (host === null) return 0;
    host.fire(this.#random.below(2 * config.pairs + 1));
    return 1;
  }

  #upgrade(mode: Mode, now: number): void {
    if (now - this.#upgradedAt < UPGRADE_MS) return;
    this.#upgradedAt = now;
    this.#announce();
    if (mode === "upgrade storm") this.told(mode);
  }

  #announce(): void {
    this.#nic.state.upgradePending = true;
    // A driver of version 1 has no events, only the vector.
    if (this.#nic.state.abilities === 0) this.#nic.host?.fire(this.#nic.queues.length);
    else this.#nic.raise(EVENT.STAGED);
  }
}

/** A port that drops what must not reach the guest, and what the guest waits for. */
export class LiarsPort extends ForwardingPort {
  /** Set after construction: the NIC is made of ports. */
  liar: Liar | null = null;
  #silent = false;

  get sendBlocked(): boolean {
    return this.#silent || this.port.sendBlocked;
  }

  send(batch: Batch): number {
    const mode = this.liar?.mode ?? "honest";
    this.#silent = mode === "silence";
    if (this.#silent) return 0;
    // What lying rings hold is not worth sending.
    return this.liar?.mayReceive === false ? batch.packets : this.port.send(batch);
  }

  override receive(batch: Batch): void {
    if (this.liar?.mayReceive !== false) super.receive(batch);
  }
}

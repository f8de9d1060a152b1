/**
 * The registers of a version 1 NIC whose queues a backend serves, for a driver in this process:
 * does what the device model of the original QEMU fork does. STATUS mirrors the backend's replies.
 */
import {
  ABI_VERSION,
  BAR_DOORBELLS,
  BAR_PROGRAM,
  BAR_REGISTERS,
  CTRL,
  MAX_PROGRAM_ID,
  type ProgramId,
  type ProgramSet,
  REG,
  STATUS,
} from "../../abi/index.ts";
import {
  type BackendOffer,
  type BackendParameters,
  type ProxyHypervisor,
  RefusedError,
} from "./hypervisor.ts";
import { QUEUES, RX_QUEUE, TX_QUEUE } from "./protocol.ts";

const DOORBELL_SIZE = 8;
const MAC_LOW = 0x00123456;
const MAC_HIGH = 0x5254;

export class ProxyDeviceModel {
  readonly #hypervisor: ProxyHypervisor;
  readonly #parameters: BackendParameters;
  readonly #offer: BackendOffer;
  readonly #programs: ProgramSet;
  #status = STATUS.LINK as number;
  #queue = 0;
  #contextLow = 0;
  #program = 0;
  /** Requests of the guest that the backend refused. */
  refused = 0;

  constructor(
    hypervisor: ProxyHypervisor,
    parameters: BackendParameters,
    offer: BackendOffer,
    programs: ProgramSet,
  ) {
    this.#hypervisor = hypervisor;
    this.#parameters = parameters;
    this.#offer = offer;
    this.#programs = programs;
  }

  read(bar: number, offset: number): number {
    if (bar === BAR_PROGRAM) return this.#programWord(offset);
    if (bar !== BAR_REGISTERS) return 0;
    return this.#register(offset);
  }

  #register(offset: number): number {
    switch (offset) {
      case REG.STATUS:
        return this.#status;
      case REG.MAC_LO:
        return MAC_LOW;
      case REG.MAC_HI:
        return MAC_HIGH;
      case REG.NUM_RX_QUEUES:
      case REG.NUM_TX_QUEUES:
        return QUEUES / 2;
      case REG.NUM_RX_BUFS:
        return this.#parameters.rxBufs;
      case REG.NUM_TX_BUFS:
        return this.#parameters.txBufs;
      case REG.RX_CTX_SIZE:
        return this.#offer.rxContextSize;
      case REG.TX_CTX_SIZE:
        return this.#offer.txContextSize;
      case REG.DOORBELL_SIZE:
        return DOORBELL_SIZE;
      case REG.VERSION:
        return ABI_VERSION;
      case REG.FEATURES:
        return this.#offer.features;
      case REG.PROG_SIZE:
        return (this.#code()?.length ?? 0) / 8;
      default:
        return 0;
    }
  }

  #code(): Uint8Array | undefined {
    return this.#programs.code.get(this.#program as ProgramId);
  }

  #programWord(offset: number): number {
    const code = this.#code();
    if (code === undefined || offset + 4 > code.length) return 0;
    return new DataView(code.buffer, code.byteOffset).getUint32(offset, true);
  }

  write(bar: number, offset: number, value: number): void {
    if (bar === BAR_DOORBELLS) {
      const queue = offset / DOORBELL_SIZE;
      if (queue < QUEUES && Number.isInteger(queue)) this.#hypervisor.kick(queue);
    } else if (bar === BAR_REGISTERS) this.#writeRegister(offset, value);
  }

  #writeRegister(offset: number, value: number): void {
    if (offset === REG.CTRL) this.#control(value);
    else if (offset === REG.QUEUE_SELECT && value < QUEUES) this.#queue = value;
    else if (offset === REG.CTX_PADDR_LO) this.#contextLow = value;
    else if (offset === REG.CTX_PADDR_HI) {
      const address = value * 2 ** 32 + this.#contextLow;
      this.#ask(() => this.#hypervisor.setContext(this.#queue, address));
    } else if (offset === REG.PROG_SELECT && value <= MAX_PROGRAM_ID) this.#program = value;
    else if (offset === REG.FEATURES) this.#ask(() => this.#hypervisor.setFeatures(value));
  }

  /** As the original, gives interrupt descriptors only while a direction is enabled. */
  #control(bits: number): void {
    if (bits & (CTRL.RX_ENABLE | CTRL.TX_ENABLE)) this.#interrupts(true);
    if (bits & CTRL.RX_ENABLE) this.#switch("RX", true, STATUS.RX_ENABLED);
    if (bits & CTRL.TX_ENABLE) this.#switch("TX", true, STATUS.TX_ENABLED);
    if (bits & CTRL.RX_DISABLE) this.#switch("RX", false, STATUS.RX_ENABLED);
    if (bits & CTRL.TX_DISABLE) this.#switch("TX", false, STATUS.TX_ENABLED);
    const enabled = this.#status & (STATUS.RX_ENABLED | STATUS.TX_ENABLED);
    if (enabled === 0 && bits & (CTRL.RX_DISABLE | CTRL.TX_DISABLE)) this.#interrupts(false);
  }

  #switch(direction: "RX" | "TX", enable: boolean, bit: number): void {
    const done = this.#ask(() =>
      enable ? this.#hypervisor.enable(direction) : this.#hypervisor.disable(direction),
    );
    if (done) this.#status = enable ? this.#status | bit : this.#status & ~bit;
  }

  #interrupts(present: boolean): void {
    for (const queue of [RX_QUEUE, TX_QUEUE]) {
      this.#ask(() => this.#hypervisor.setInterrupt(queue, present));
    }
  }

  /** @returns false if the backend refused */
  #ask(request: () => void): boolean {
    try {
      request();
      return true;
    } catch (error) {
      if (!(error instanceof RefusedError)) throw error;
      this.refused++;
      return false;
    }
  }
}

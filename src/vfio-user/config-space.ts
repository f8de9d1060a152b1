/**
 * PCI configuration space (4096 bytes) of a PCI Express endpoint: storage, write masks, and the
 * registers whose writes have effects. Layout: PCI Local Bus 3.0 chapter 6, PCI Express Base
 * chapter 7.
 */
import { RecordError, readRecord } from "../memory/record.ts";
import type { PciIdentity } from "./device.ts";

export const CONFIG_SIZE = 4096;

const COMMAND = 0x04;
const COMMAND_BUS_MASTER = 0x04;
const STATUS = 0x06;
const STATUS_CAPABILITIES = 0x10;
const REVISION = 0x08;
const CLASS_CODE = 0x09;
const CACHE_LINE = 0x0c;
const LATENCY = 0x0d;
const SUBSYSTEM_VENDOR = 0x2c;
const SUBSYSTEM = 0x2e;
const CAPABILITIES = 0x34;
const INTERRUPT_LINE = 0x3c;
/** Memory, I/O and bus master enable, parity, SERR, INTx disable. */
const COMMAND_WRITABLE = 0x0547;

const PM = 0x40;
const PM_CONTROL = PM + 4;
const PM_STATE = 0x03;
const EXPRESS = 0x50;
const EXPRESS_CONTROL = EXPRESS + 8;
const FLR_BYTE = EXPRESS_CONTROL + 1;
const FLR = 0x80;
const MSI = 0x90;
const MSI_64_BIT = 0x80;
/** Enable bit, and the number of messages that the guest uses. */
const MSI_CONTROL_WRITABLE = 0x71;
const MSIX = 0x90;
const MSIX_CONTROL = MSIX + 2;

/** Power management v3; the state survives D3 (no soft reset). */
const PM_CAPABILITY = [0x01, 0, 0x03, 0, 0x08, 0, 0, 0];
/**
 * PCI Express v2 endpoint: role-based errors, function level reset;
 * device control 0x2810; a x1 link of 2.5 GT/s.
 */
const EXPRESS_CAPABILITY = [
  [0x10, 0, 0x02, 0],
  [0x00, 0x80, 0x00, 0x10],
  [0x10, 0x28, 0, 0],
  [0x11, 0, 0, 0],
  [0, 0, 0x11, 0],
  ...new Array(10).fill([0, 0, 0, 0]),
].flat() as number[];

export interface MsixPlace {
  readonly vectors: number;
  readonly bar: number;
  readonly tableOffset: number;
  readonly pbaOffset: number;
}

/** Effect of a write to configuration space. */
export const CONFIG_EFFECT = { none: 0, busMaster: 1, reset: 2 } as const;

/** State of a configuration space. */
export interface ConfigRecord {
  readonly version: 1;
  readonly bytes: readonly { readonly at: number; readonly value: number }[];
}

export class ConfigSpace {
  readonly bytes = new Uint8Array(CONFIG_SIZE);
  readonly #mask = new Uint8Array(CONFIG_SIZE);
  readonly #initial: Uint8Array;
  readonly #data = new DataView(this.bytes.buffer);
  #lastCapability = 0;

  /**
   * @param interrupts the place of MSI-X, or the number of messages of plain MSI (a power of two);
   * null: none
   */
  constructor(identity: PciIdentity, interrupts: MsixPlace | number | null) {
    this.#putIdentity(identity);
    this.#addCapability(PM, PM_CAPABILITY);
    this.#mask[PM_CONTROL] = PM_STATE;
    this.#addCapability(EXPRESS, EXPRESS_CAPABILITY);
    this.#mask.fill(0xff, EXPRESS_CONTROL, EXPRESS_CONTROL + 2);
    if (typeof interrupts === "number") this.#addMsi(interrupts);
    else if (interrupts !== null) this.#addMsix(interrupts);
    this.#initial = this.bytes.slice();
  }

  #putIdentity(id: PciIdentity): void {
    const data = this.#data;
    data.setUint16(0x00, id.vendor, true);
    data.setUint16(0x02, id.device, true);
    data.setUint16(STATUS, STATUS_CAPABILITIES, true);
    this.bytes[REVISION] = id.revision ?? 0;
    this.bytes[CLASS_CODE] = id.classCode & 0xff;
    data.setUint16(CLASS_CODE + 1, id.classCode >>> 8, true);
    data.setUint16(SUBSYSTEM_VENDOR, id.subsystemVendor ?? id.vendor, true);
    data.setUint16(SUBSYSTEM, id.subsystem ?? id.device, true);
    // The BARs (0x10 to 0x27) and the ROM BAR (0x30) stay 0 and read-only: the client owns their
    // values, and storing the sizing write at 0x30 would make QEMU see a ROM.
    this.#mask[COMMAND] = COMMAND_WRITABLE & 0xff;
    this.#mask[COMMAND + 1] = COMMAND_WRITABLE >>> 8;
    this.#mask[CACHE_LINE] = 0xff;
    this.#mask[LATENCY] = 0xff;
    this.#mask[INTERRUPT_LINE] = 0xff;
  }

  /** Stores a capability and links it to the previous one. */
  #addCapability(at: number, bytes: readonly number[]): void {
    this.bytes.set(bytes, at);
    const link = this.#lastCapability === 0 ? CAPABILITIES : this.#lastCapability + 1;
    this.bytes[link] = at;
    this.#lastCapability = at;
  }

  /** With 64-bit addresses, without masks. */
  #addMsi(messages: number): void {
    this.#addCapability(MSI, [0x05, 0]);
    this.#data.setUint16(MSI + 2, MSI_64_BIT | (Math.log2(messages) << 1), true);
    this.#mask[MSI + 2] = MSI_CONTROL_WRITABLE;
    this.#mask.fill(0xff, MSI + 4, MSI + 14);
    // Message addresses are aligned to 4 bytes.
    this.#mask[MSI + 4] = 0xfc;
  }

  #addMsix({ vectors, bar, tableOffset, pbaOffset }: MsixPlace): void {
    this.#addCapability(MSIX, [0x11, 0]);
    this.#data.setUint16(MSIX_CONTROL, vectors - 1, true);
    this.#data.setUint32(MSIX + 4, tableOffset | bar, true);
    this.#data.setUint32(MSIX + 8, pbaOffset | bar, true);
    this.#mask[MSIX_CONTROL + 1] = 0xc0;
  }

  /** The guest allows bus mastering and has not put the device to sleep. */
  get busMaster(): boolean {
    const enabled = this.bytes[COMMAND]! & COMMAND_BUS_MASTER;
    return enabled !== 0 && (this.bytes[PM_CONTROL]! & PM_STATE) === 0;
  }

  /**
   * Stores the writable bits of `data[at, +count)` at `offset`; the caller has checked the range.
   * @returns CONFIG_EFFECT
   */
  write(offset: number, data: Uint8Array, at: number, count: number): number {
    const before = this.busMaster;
    for (let i = 0; i < count; i++) {
      const mask = this.#mask[offset + i]!;
      this.bytes[offset + i] = (this.bytes[offset + i]! & ~mask) | (data[at + i]! & mask);
    }
    // The bit that starts a function level reset always reads as 0.
    if (this.bytes[FLR_BYTE]! & FLR) return CONFIG_EFFECT.reset;
    return this.busMaster === before ? CONFIG_EFFECT.none : CONFIG_EFFECT.busMaster;
  }

  reset(): void {
    this.bytes.set(this.#initial);
  }

  /** Returns the bytes that differ from those after reset. */
  save(): ConfigRecord {
    const changed = Array.from(this.bytes.keys()).filter(
      (at) => this.bytes[at] !== this.#initial[at],
    );
    return { version: 1, bytes: changed.map((at) => ({ at, value: this.bytes[at]! })) };
  }

  /**
   * Checks a record against what a guest can write.
   * @returns the function that restores it, which does not fail
   * @throws RecordError
   */
  prepare(name: string, value: unknown): () => void {
    const bytes = this.#initial.slice();
    let last = -1;
    readRecord(name, value, 1, (record) =>
      record.list("bytes", CONFIG_SIZE, (item) => {
        const at = item.whole("at", 0, CONFIG_SIZE - 1);
        const byte = item.whole("value", 0, 0xff);
        if (at <= last) item.refuse("at", "bytes are sorted, and each is there once");
        last = at;
        if (byte === bytes[at]) item.refuse("value", "it is the value after reset");
        const fixed = 0xff & ~this.#mask[at]!;
        if (((byte ^ bytes[at]!) & fixed) !== 0) item.refuse("value", "it has read-only bits");
        bytes[at] = byte;
      }),
    );
    if (bytes[FLR_BYTE]! & FLR) throw new RecordError(`${name}: a reset is in progress`);
    return () => this.bytes.set(bytes);
  }
}

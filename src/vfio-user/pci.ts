/**
 * A PCI device as the protocol presents it: regions, configuration space, MSI-X and resets, around
 * the author's device. Independent of messages.
 */
import { CONFIG_EFFECT, CONFIG_SIZE, ConfigSpace } from "./config-space.ts";
import type { Counters } from "./counters.ts";
import type { PciDevice } from "./device.ts";
import { MAX_MSI_VECTORS, MAX_VECTORS, MsixVectors, placeMsix } from "./msix.ts";
import { IRQ, REGION } from "./protocol.ts";

const BARS = 6;
const MIN_BAR = 16;
const MAX_BAR = 2 ** 31;
const NO_BAR = -1;

export class PciFunction {
  readonly device: PciDevice;
  readonly config: ConfigSpace;
  readonly vectors: MsixVectors;
  /** Bytes of each region, 0 if there is none. */
  readonly regionSizes = new Float64Array(REGION.COUNT);
  readonly #counters: Counters;
  readonly #msixBar: number;
  readonly #pbaOffset: number;
  readonly #wide = new Uint32Array(2);

  /** @throws RangeError if the device's description is not valid for PCI */
  constructor(device: PciDevice, counters: Counters) {
    checkShape(device);
    this.device = device;
    this.#counters = counters;
    const { vectors, identity, interrupts = "msix" } = device;
    const messages = 2 ** Math.ceil(Math.log2(Math.max(1, vectors)));
    this.#msixBar = vectors === 0 || interrupts === "msi" ? NO_BAR : chooseMsixBar(device);
    const place = placeMsix(vectors, this.#msixBar);
    this.#pbaOffset = place.pbaOffset;
    const capability = interrupts === "msi" ? messages : place;
    this.config = new ConfigSpace(identity, vectors === 0 ? null : capability);
    this.vectors =
      interrupts === "msi" && vectors > 0
        ? new MsixVectors(messages, IRQ.msi)
        : new MsixVectors(vectors);
    for (const [i, bar] of device.bars.entries()) this.regionSizes[i] = bar?.size ?? 0;
    if (this.#msixBar !== NO_BAR) this.regionSizes[this.#msixBar] = place.barSize;
    this.regionSizes[REGION.config] = CONFIG_SIZE;
  }

  /** @returns true if `[offset, +count)` is in the region; offset in u32 halves */
  inside(region: number, low: number, high: number, count: number): boolean {
    if (region >= REGION.COUNT || high !== 0) return false;
    const size = this.regionSizes[region]!;
    return count > 0 && count <= size && low <= size - count;
  }

  /** Reads 1, 2, 4 or 8 bytes of a BAR into `to` at `at`. */
  readBar(bar: number, offset: number, count: number, to: DataView, at: number): void {
    if (bar === this.#msixBar) {
      for (let i = 0; i < count; i++) to.setUint8(at + i, this.#msixByte(offset + i));
    } else if (count === 4) to.setUint32(at, this.device.read(bar, offset, 4), true);
    else if (count === 1) to.setUint8(at, this.device.read(bar, offset, 1));
    else if (count === 2) to.setUint16(at, this.device.read(bar, offset, 2), true);
    else this.#readWide(bar, offset, to, at);
  }

  #readWide(bar: number, offset: number, to: DataView, at: number): void {
    const { device } = this;
    const wide = this.#wide;
    if (device.readWide !== undefined) device.readWide(bar, offset, wide);
    else {
      wide[0] = device.read(bar, offset, 4);
      wide[1] = device.read(bar, offset + 4, 4);
    }
    to.setUint32(at, wide[0]!, true);
    to.setUint32(at + 4, wide[1]!, true);
  }

  /** The client owns the vector table, which reads as 0; the pending bits are kept here. */
  #msixByte(offset: number): number {
    return offset < this.#pbaOffset ? 0 : this.vectors.pendingByte(offset - this.#pbaOffset);
  }

  /** Writes 1, 2, 4 or 8 bytes to a BAR. */
  writeBar(bar: number, offset: number, count: number, from: DataView, at: number): void {
    if (bar === this.#msixBar) return;
    const { device } = this;
    if (count === 4) device.write(bar, offset, 4, from.getUint32(at, true), 0);
    else if (count === 1) device.write(bar, offset, 1, from.getUint8(at), 0);
    else if (count === 2) device.write(bar, offset, 2, from.getUint16(at, true), 0);
    else device.write(bar, offset, 8, from.getUint32(at, true), from.getUint32(at + 4, true));
  }

  writeConfig(offset: number, count: number, from: Uint8Array, at: number): void {
    const before = this.config.busMaster;
    const effect = this.config.write(offset, from, at, count);
    if (effect === CONFIG_EFFECT.reset) this.reset(before);
    else if (effect === CONFIG_EFFECT.busMaster) {
      this.device.busMasterChanged(this.config.busMaster);
    }
  }

  /** Fires a vector if the guest allows it. */
  fire(vector: number): void {
    if (this.config.busMaster && this.vectors.fire(vector)) this.#counters.interrupts++;
    else this.#counters.interruptsDropped++;
  }

  /**
   * Full stop: resets configuration space and device.
   * @param wasBusMaster the last `busMasterChanged` allowed the device to use memory
   */
  reset(wasBusMaster = this.config.busMaster): void {
    this.#counters.resets++;
    this.config.reset();
    this.vectors.reset();
    if (wasBusMaster) this.device.busMasterChanged(false);
    this.device.reset();
  }
}

function checkShape({ bars, vectors, identity, interrupts }: PciDevice): void {
  if (bars.length > BARS) throw new RangeError(`a PCI device has at most ${BARS} BARs`);
  for (const [i, bar] of bars.entries()) {
    if (bar === null) continue;
    const { size } = bar;
    if (size >= MIN_BAR && size <= MAX_BAR && 2 ** Math.round(Math.log2(size)) === size) continue;
    throw new RangeError(`BAR ${i}: ${size} bytes; use a power of two from ${MIN_BAR} to 2^31`);
  }
  const [kind, most] = interrupts === "msi" ? ["MSI", MAX_MSI_VECTORS] : ["MSI-X", MAX_VECTORS];
  if (!Number.isInteger(vectors) || vectors < 0 || vectors > most) {
    throw new RangeError(`${vectors} ${kind} vectors; use 0 to ${most}`);
  }
  for (const [name, id] of Object.entries(identity) as [string, number][]) {
    const limit = name === "classCode" ? 0xffffff : name === "revision" ? 0xff : 0xffff;
    if (!(id >= 0 && id <= limit)) throw new RangeError(`${name} ${id}: use 0 to ${limit}`);
  }
}

function chooseMsixBar({ bars, msixBar }: PciDevice): number {
  const free = Array.from({ length: BARS }, (_, i) => i).filter((i) => (bars[i] ?? null) === null);
  const chosen = msixBar ?? free[0];
  if (chosen !== undefined && free.includes(chosen)) return chosen;
  throw new RangeError("MSI-X needs a BAR of its own: leave one null and name it in msixBar");
}

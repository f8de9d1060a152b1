/** The client's memory: requests that map parts of it, and requests that take them away again. */
import { OK, type RegionRequest, type RegionTable } from "../memory/regions.ts";
import { ENOTSUP } from "../os/errors.ts";
import type { PciDevice } from "./device.ts";
import { DMA_FLAG, DMA_MAP, DMA_UNMAP } from "./protocol.ts";

/** Exact below 2^53; a larger value is never read as one below. */
const u64 = (data: DataView, offset: number): number =>
  data.getUint32(offset, true) + data.getUint32(offset + 4, true) * 2 ** 32;

/** @returns null if it is malformed */
export function mapRequest(
  data: DataView,
  at: number,
  payload: number,
  fds: number,
): RegionRequest | null {
  const flags = payload === DMA_MAP.SIZE ? data.getUint32(at + DMA_MAP.flags, true) : 0;
  const known = DMA_FLAG.read | DMA_FLAG.write;
  const wellFormed = fds <= 1 && flags !== 0 && (flags & ~known) === 0;
  if (!wellFormed || data.getUint32(at, true) < DMA_MAP.SIZE) return null;
  return {
    address: u64(data, at + DMA_MAP.address),
    size: u64(data, at + DMA_MAP.size),
    offset: fds === 0 ? 0 : u64(data, at + DMA_MAP.offset),
    readable: (flags & DMA_FLAG.read) !== 0,
    writable: (flags & DMA_FLAG.write) !== 0,
  };
}

/** The device hears of each range that comes, and of each before it goes. */
export class ClientMemory {
  readonly #table: RegionTable;
  readonly #device: PciDevice;

  constructor(table: RegionTable, device: PciDevice) {
    this.#table = table;
    this.#device = device;
  }

  /** Takes the descriptor, -1 for none, in any case. @returns an errno */
  map(request: RegionRequest, fd: number): number {
    const errno = this.#table.map(request, fd);
    if (errno !== OK) return errno;
    this.#device.dmaMapped?.(this.#table.exact(request.address, request.size)!);
    return OK;
  }

  /** Executes a request of the right size. @returns an errno */
  unmap(data: DataView, at: number): number {
    const flags = data.getUint32(at + DMA_UNMAP.flags, true);
    const address = u64(data, at + DMA_UNMAP.address);
    const size = u64(data, at + DMA_UNMAP.size);
    if (flags === DMA_FLAG.unmapAll && address === 0 && size === 0) {
      this.unmapAll();
      return OK;
    }
    if (flags !== 0) return ENOTSUP;
    for (const range of this.#table.wholeIn(address, size)) this.#device.dmaUnmapping?.(range);
    return this.#table.unmap(address, size);
  }

  unmapAll(): void {
    for (const range of this.#table.ranges) this.#device.dmaUnmapping?.(range);
    this.#table.unmapAll();
  }
}

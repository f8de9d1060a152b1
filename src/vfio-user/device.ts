/** The interface of a PCI device's author, and that of the library to the device. */
import type { Region, RegionTable } from "../memory/regions.ts";

export interface PciIdentity {
  readonly vendor: number;
  readonly device: number;
  readonly subsystemVendor?: number;
  readonly subsystem?: number;
  /** 24 bits: class, subclass, programming interface; 0x020000 is an Ethernet controller. */
  readonly classCode: number;
  readonly revision?: number;
}

export interface Bar {
  /** Bytes, a power of two, 16 to 2^31. The guest sees 32-bit memory, not prefetchable. */
  readonly size: number;
}

/** The machine, as a device uses it. */
export interface DeviceHost {
  /** Fires a vector; no effect if the guest does not use it, or bus mastering is off. */
  fire(vector: number): void;
  /** Guest memory. */
  readonly dma: RegionTable;
  /** True if the guest allows the device to use memory and interrupts. */
  readonly busMaster: boolean;
}

/**
 * A PCI device. All calls come from the loop that owns the server, one at a time;
 * an exception is counted, reported as a warning and answered with EIO. Offsets
 * and sizes of accesses are checked against the BAR.
 */
export interface PciDevice {
  readonly identity: PciIdentity;
  /** Up to six, by BAR index; null if there is none. */
  readonly bars: readonly (Bar | null)[];
  /** Number of interrupt vectors: 0 to 2048, with plain MSI 0 to 32. */
  readonly vectors: number;
  /**
   * Default: MSI-X. With plain MSI a guest may enable fewer vectors: the others fire the first.
   */
  readonly interrupts?: "msix" | "msi";
  /** BAR that the library uses for MSI-X; must be null in `bars`. Default: the first free one. */
  readonly msixBar?: number;

  /** BAR whose writes change nothing that another process would have to know, if it goes on. */
  readonly doorbells?: number;

  /** The guest reads 1, 2 or 4 bytes, at any alignment; the result is taken modulo the size. */
  read(bar: number, offset: number, size: number): number;
  /**
   * The guest reads 8 bytes in one access: low half into `value[0]`, high half into `value[1]`.
   * Without this the library reads the low half, then the high half.
   */
  readWide?(bar: number, offset: number, value: Uint32Array): void;
  /** The guest writes 1, 2, 4 or 8 bytes; u32 halves, `high` is 0 below 8 bytes. */
  write(bar: number, offset: number, size: number, low: number, high: number): void;
  /** Full stop: no DMA, no interrupts, registers as at power-on. Twice in a row is normal. */
  reset(): void;
  /** Off means: no use of guest memory when this returns. */
  busMasterChanged(enabled: boolean): void;
  /** The range became part of guest memory. */
  dmaMapped?(range: Region): void;
  /** The range is removed next: the device uses and views it no more when this returns. */
  dmaUnmapping?(range: Region): void;
  /** A client (a virtual machine) has connected and negotiated. */
  attached?(host: DeviceHost): void;
  /** The client is gone; `reset` and `dmaUnmapping` were called before. */
  detached?(): void;
}

/**
 * The vfio-user protocol, version 0.0, as data: message numbers and field offsets (bytes, little
 * endian). Source: the protocol text in libvfio-user (docs/vfio-user.rst) and QEMU
 * (docs/interop/vfio-user.rst).
 */

export const COMMAND = {
  VERSION: 1,
  DMA_MAP: 2,
  DMA_UNMAP: 3,
  DEVICE_GET_INFO: 4,
  DEVICE_GET_REGION_INFO: 5,
  DEVICE_GET_IRQ_INFO: 7,
  DEVICE_SET_IRQS: 8,
  REGION_READ: 9,
  REGION_WRITE: 10,
  DEVICE_RESET: 13,
} as const;

/** Starts every message, in both directions; the payload follows at `SIZE`. */
export const HEADER = { id: 0, command: 2, size: 4, flags: 8, errno: 12, SIZE: 16 } as const;

export const FLAG = { typeMask: 0x0f, request: 0, reply: 1, noReply: 0x10, error: 0x20 } as const;

/** Payload offsets, counted from the end of the header. `SIZE` is the fixed part. */
export const VERSION = { major: 0, minor: 2, json: 4, SIZE: 4 } as const;
export const DMA_MAP = { argsz: 0, flags: 4, offset: 8, address: 16, size: 24, SIZE: 32 } as const;
export const DMA_UNMAP = { argsz: 0, flags: 4, address: 8, size: 16, SIZE: 24 } as const;
export const DEVICE_INFO = { argsz: 0, flags: 4, regions: 8, irqs: 12, SIZE: 16 } as const;
export const REGION_INFO = {
  argsz: 0,
  flags: 4,
  index: 8,
  capOffset: 12,
  size: 16,
  offset: 24,
  SIZE: 32,
} as const;
export const IRQ_INFO = { argsz: 0, flags: 4, index: 8, count: 12, SIZE: 16 } as const;
export const SET_IRQS = { argsz: 0, flags: 4, index: 8, start: 12, count: 16, SIZE: 20 } as const;
export const REGION_ACCESS = { offset: 0, region: 8, count: 12, data: 16, SIZE: 16 } as const;

export const DMA_FLAG = { read: 1, write: 2, unmapAll: 2 } as const;
export const DEVICE_FLAG = { reset: 1, pci: 2 } as const;
export const REGION_FLAG = { read: 1, write: 2 } as const;
export const IRQ_FLAG = { eventfd: 1 } as const;
export const IRQ_SET = {
  dataNone: 0x01,
  dataBool: 0x02,
  dataEventfd: 0x04,
  mask: 0x08,
  unmask: 0x10,
  trigger: 0x20,
} as const;

/** Regions 0 to 5 are the BARs. */
export const REGION = { rom: 6, config: 7, vga: 8, COUNT: 9 } as const;
export const IRQ = { intx: 0, msi: 1, msix: 2, error: 3, request: 4, COUNT: 5 } as const;

/** Announced limits: longest data of one access, and descriptors of one message. */
export const MAX_DATA = 65536;
export const MAX_MESSAGE_FDS = 8;
/** Room for messages that carry no region data, of which VERSION with its JSON is the longest. */
export const MAX_MESSAGE = HEADER.SIZE + REGION_ACCESS.SIZE + MAX_DATA;

/** An access of a BAR as a CPU makes it. */
export function isAccessSize(count: number): boolean {
  return count === 4 || count === 1 || count === 2 || count === 8;
}

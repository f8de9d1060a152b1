/**
 * The registers in BAR 0, the other BARs, and the bits of the registers. Offsets are in bytes.
 * Every register is 32 bits wide and little endian. Version 1 ends at 92. Extension 1 follows,
 * which a driver discovers by EXT_ID and acknowledges in EXT_ACK.
 */
export const REG = {
  STATUS: 0,
  CTRL: 4,
  MAC_LO: 8,
  MAC_HI: 12,
  NUM_RX_QUEUES: 16,
  NUM_TX_QUEUES: 20,
  NUM_RX_BUFS: 24,
  NUM_TX_BUFS: 28,
  RX_CTX_SIZE: 32,
  TX_CTX_SIZE: 36,
  DOORBELL_SIZE: 40,
  QUEUE_SELECT: 44,
  CTX_PADDR_LO: 48,
  CTX_PADDR_HI: 52,
  PROG_SELECT: 56,
  PROG_SIZE: 60,
  DOORBELL_GVA_LO: 64,
  DOORBELL_GVA_HI: 68,
  VERSION: 72,
  FEATURES: 76,
  DUMP_LEN: 80,
  DUMP_INPUT: 84,
  DUMP_OFS: 88,
  EXT_ID: 92,
  EXT_OFFER: 96,
  EXT_ACK: 100,
  EVENT: 104,
  SET_CUR: 108,
  SET_NEXT: 112,
  SET_VIEW: 116,
  SET_VERDICT: 120,
  VERDICT_INFO: 124,
  Q_CMD: 128,
  Q_DRAINED: 132,
  BLOB_LO: 136,
  BLOB_HI: 140,
  BLOB_LEN: 144,
  OFFERED: 148,
  MTU: 152,
  RX_GEOM: 156,
  PAGES_LO: 160,
  PAGES_HI: 164,
  LINK_SPEED: 168,
  FILTER_LO: 172,
  FILTER_HI: 176,
  FILTER_STATE: 180,
  COALESCE: 184,
  RSS_LO: 188,
  RSS_HI: 192,
  RSS_STATE: 196,
  EXT_END: 200,
} as const;

export type RegisterName = keyof typeof REG;

export const ABI_VERSION = 1;
/** "BVX1" */
export const EXT_ID_VALUE = 0x31585642;

export const BAR_REGISTERS = 0;
export const BAR_DOORBELLS = 1;
export const BAR_MSIX = 2;
export const BAR_PROGRAM = 3;

/** Bytes. The vfio-user client needs whole pages; version 1 uses the first 256 bytes. */
export const BAR_REGISTERS_SIZE = 4096;
export const BAR_PROGRAM_SIZE = 131072;

export const STATUS = { LINK: 1, UPGRADE: 2, RX_ENABLED: 4, TX_ENABLED: 8 } as const;

export const CTRL = {
  RX_ENABLE: 1,
  TX_ENABLE: 2,
  RX_DISABLE: 4,
  TX_DISABLE: 8,
  UPGRADE_READY: 16,
  QUEUES_DUMP: 32,
} as const;

/** Bits of EXT_OFFER and EXT_ACK. */
export const ABILITY = {
  OVERLAP: 1,
  BLOB: 2,
  EVENT: 4,
  GEOMETRY: 8,
  HELPERFREE: 16,
  CTX_PAGES: 32,
  QUEUE_PAIRS: 64,
  FILTER: 1024,
  COALESCE: 2048,
  RSS: 4096,
} as const;

/** Bits of EVENT; writing 1 clears a bit. */
export const EVENT = { LINK_OR_MTU: 1, STAGED: 2, WITHDRAWN: 4, NEEDS_RESET: 8 } as const;

/** Commands of Q_CMD: `command << 16 | queue`. */
export const Q_CMD = { TX_CUT: 1, RX_CUT: 2, RETIRE: 4 } as const;

/**
 * Modes of a receive filter (ability FILTER). LIST: the listed addresses and broadcast;
 * ALL_MULTICAST: every multicast address, too.
 */
export const FILTER_MODE = { ALL: 0, LIST: 1, ALL_MULTICAST: 3 } as const;

/** Result of the last FILTER request, in FILTER_STATE from bit 8 on. */
export const FILTER_RESULT = { OK: 0, INVALID: 1, ADDRESS: 2 } as const;

/** Addresses of a receive filter: a page holds its header and these. */
export const MAX_FILTER_ADDRESSES = 511;

/** Longest time that an interrupt may be held, in microseconds (ability COALESCE). */
export const MAX_COALESCE_US = 10_000;

/** In COALESCE: receive in its low half, transmit in its high one. */
export const COALESCE_ADAPTIVE = 0x8000;

/**
 * What the guest wants of flow hashes (ability RSS). STEER: its table chooses the receive queue;
 * REPORT: the hash comes with the packet, if the ring format has room for it.
 */
export const RSS_FLAG = { STEER: 1, REPORT: 2 } as const;

/** Result of the last RSS request, in RSS_STATE from bit 8 on. */
export const RSS_RESULT = { OK: 0, INVALID: 1 } as const;

/** Packets that are hashed; TCP and UDP: with ports. */
export const HASH_TYPE = {
  IPV4: 1,
  TCP_V4: 2,
  UDP_V4: 4,
  IPV6: 8,
  TCP_V6: 16,
  UDP_V6: 32,
} as const;

/** Entries of the table that chooses a queue: a power of two, at most this. */
export const MAX_RSS_TABLE = 128;

/** Codes of SET_VERDICT: `generation << 8 | code`, and what it reads. */
export const VERDICT = { READY: 0, REFUSED: 1, MEMORY: 2, FEATURE: 3, ABORT: 4 } as const;
export const ANSWER = { PENDING: 0, GO: 1, WITHDRAWN: 2 } as const;

/** Red Hat's vendor id, which the original uses. */
export const PCI_VENDOR = 0x1b36;
/** The original's device id, which QEMU also gives to its PCIe-to-PCI bridge. */
export const PCI_DEVICE_ORIGINAL = 0x000e;
/** This project's device id, which is unused in QEMU's list. */
export const PCI_DEVICE = 0x0b9f;
export const PCI_CLASS_ETHERNET = 0x020000;

/** Granularity of a context's page list (ability CTX_PAGES). */
export const CONTEXT_PAGE = 4096;

/** "BVBL": magic of the program blob that the host writes into guest memory (ability BLOB). */
export const BLOB_MAGIC = 0x4c425642;

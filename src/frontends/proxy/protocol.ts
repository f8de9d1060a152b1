/**
 * The bpfhv-proxy control protocol as data: strict request and reply over a UNIX stream socket
 * between a VMM (which listens) and the process that serves the queues of one device (which
 * connects).
 *
 *     header (12 bytes): request type u32, flags u32 (version, error), payload bytes u32
 *     payload
 *
 * All little endian, nothing padded between header and payload. Descriptors travel with the header.
 */

export const HEADER = { type: 0, flags: 4, size: 8, SIZE: 12 } as const;
/** Bits of the header's flags. */
export const VERSION_MASK = 0x7;
export const VERSION = 1;
export const FLAG_ERROR = 0x8;

export const REQUEST = {
  GET_FEATURES: 1,
  SET_FEATURES: 2,
  SET_PARAMETERS: 3,
  GET_PROGRAMS: 4,
  SET_MEM_TABLE: 5,
  SET_QUEUE_CTX: 6,
  SET_QUEUE_KICK: 7,
  SET_QUEUE_IRQ: 8,
  SET_UPGRADE: 9,
  RX_ENABLE: 10,
  TX_ENABLE: 11,
  RX_DISABLE: 12,
  TX_DISABLE: 13,
} as const;

export type RequestName = keyof typeof REQUEST;
export const REQUEST_NAMES = Object.keys(REQUEST) as RequestName[];

export interface RequestShape {
  /** Payload bytes: exactly so many. */
  readonly size: number;
  /** Descriptors, fewest and most; null: those that come are closed. */
  readonly fds: readonly [number, number] | null;
  /** Payload bytes of a reply that is not an error. */
  readonly replySize: number;
  /** What it does while a direction is enabled. */
  readonly whileRunning: WhileRunning;
}

/**
 * The original's backend refuses whatever changes the device while packets flow, and its QEMU fork
 * exits at a refused SET_FEATURES. But the fork tells of no machine reset, so the next driver's
 * requests meet a device that runs for a guest that is gone; and a feature that a driver switches
 * while it is up arrives like that, too.
 *
 * - `served`: as when it is stopped.
 * - `stops`: the guest that enabled the device is gone. Both directions stop first.
 * - `refused`: nothing changes.
 */
export type WhileRunning = "served" | "stops" | "refused";

const shape = (
  size: number,
  fds: readonly [number, number] | null = null,
  rest: { replySize?: number; whileRunning?: WhileRunning } = {},
): RequestShape => ({ size, fds, replySize: 0, whileRunning: "served", ...rest });

export const MAX_REGIONS = 8;
const MEMORY_MAP_SIZE = 8 + 32 * MAX_REGIONS;

export const REQUESTS: Readonly<Record<RequestName, RequestShape>> = {
  GET_FEATURES: shape(0, null, { replySize: 8 }),
  SET_FEATURES: shape(8),
  SET_PARAMETERS: shape(16, null, { whileRunning: "stops", replySize: 8 }),
  GET_PROGRAMS: shape(0),
  SET_MEM_TABLE: shape(MEMORY_MAP_SIZE, [0, MAX_REGIONS]),
  SET_QUEUE_CTX: shape(16, null, { whileRunning: "stops" }),
  SET_QUEUE_KICK: shape(4, [0, 1], { whileRunning: "refused" }),
  SET_QUEUE_IRQ: shape(4, [0, 1]),
  SET_UPGRADE: shape(4, [1, 1]),
  RX_ENABLE: shape(0),
  TX_ENABLE: shape(0),
  RX_DISABLE: shape(0),
  TX_DISABLE: shape(0),
};

/** The longest payload there is: SET_MEM_TABLE's. */
export const MAX_PAYLOAD = MEMORY_MAP_SIZE;
/** Descriptors of one message. */
export const MAX_FDS = 8;

/** Offsets inside payloads. */
export const PARAMETERS = { rxQueues: 0, txQueues: 4, rxBufs: 8, txBufs: 12 } as const;
export const CONTEXT_SIZES = { rx: 0, tx: 4 } as const;
export const QUEUE_CONTEXT = { queue: 0, address: 8 } as const;
export const NOTIFIER = { queue: 0 } as const;
export const MEMORY_MAP = { count: 0, regions: 8, REGION_SIZE: 32 } as const;
export const REGION = { address: 0, size: 8, hypervisorAddress: 16, offset: 24 } as const;

/** One queue pair: receive queues come first. */
export const RX_QUEUE = 0;
export const TX_QUEUE = 1;
export const QUEUES = 2;

/** Exact below 2^53; what is above is refused as an invalid address. */
export function getU64(view: DataView, at: number): number {
  return view.getUint32(at + 4, true) * 2 ** 32 + view.getUint32(at, true);
}

export function putU64(view: DataView, at: number, value: number): void {
  view.setUint32(at, value % 2 ** 32, true);
  view.setUint32(at + 4, Math.floor(value / 2 ** 32), true);
}

const BY_TYPE = new Map<number, RequestName>(REQUEST_NAMES.map((name) => [REQUEST[name], name]));

export function requestName(type: number): RequestName | undefined {
  return BY_TYPE.get(type);
}

/** The protocol cannot express another one. */
export const MTU = 1500;

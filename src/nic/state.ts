/**
 * The register state of a NIC: one plain record that reset replaces. Queues and the generation keep
 * their own state (src/engine/queue.ts, generation.ts).
 */

import {
  ABILITY,
  COALESCE_ADAPTIVE,
  FILTER_MODE,
  FILTER_RESULT,
  RSS_FLAG,
  RSS_RESULT,
} from "../abi/index.ts";
import type { Steering } from "../engine/steering.ts";
import { FlowHash, ReceiveFilter } from "../memory/index.ts";

/** How far the guest's driver got; what `status` shows while there is no traffic. */
export const HANDSHAKE_STEPS = [
  "no guest",
  /** A connection that has not shown yet that it is a VMM. */
  "client connected",
  "guest attached",
  "driver found the device",
  "programs fetched",
  "contexts registered",
  "enabled",
] as const;
export type HandshakeStep = (typeof HANDSHAKE_STEPS)[number];

/** Registers of 64 bits in two words, NAME_LO and NAME_HI. */
export const LATCHES = ["CTX_PADDR", "DOORBELL_GVA", "BLOB", "PAGES", "FILTER", "RSS"] as const;
export type LatchName = (typeof LATCHES)[number];

/** The receive filter that the driver asked for (ability FILTER). */
export interface FilterState {
  /** FILTER_MODE */
  readonly mode: number;
  /** FILTER_RESULT of the last request; a request that is refused changes nothing else. */
  readonly result: number;
  /** 48-bit numbers, each once; the guest's own first. Empty: it has not said them. */
  readonly addresses: readonly number[];
}

/** What the driver asked for of flow hashes (ability RSS). */
export interface RssState {
  /** RSS_FLAG bits */
  readonly flags: number;
  /** HASH_TYPE bits */
  readonly types: number;
  /** Bytes; empty before the first request. */
  readonly key: readonly number[];
  /** Receive queue by the low bits of the hash; empty without STEER. */
  readonly table: readonly number[];
  /** RSS_RESULT of the last request; a request that is refused changes nothing else. */
  readonly result: number;
}

export interface NicState {
  busMaster: boolean;
  upgradePending: boolean;
  queueSelect: number;
  programSelect: number;
  latches: Record<LatchName, { low: number; high: number }>;
  /** FEATURES was written: it shows the selection from then on. */
  featuresNegotiated: boolean;
  selectedFeatures: number;
  /** Acknowledged ABILITY bits. */
  abilities: number;
  /** EVENT bits. */
  events: number;
  verdictInfo: number;
  filter: FilterState;
  rss: RssState;
  /** The COALESCE register. */
  coalesce: number;
  dump: string;
  /** Bytes, a multiple of 4, inside the dump. */
  dumpOffset: number;
}

/** The state after reset. */
export function newNicState(): NicState {
  return {
    busMaster: false,
    upgradePending: false,
    queueSelect: 0,
    programSelect: 0,
    latches: {
      CTX_PADDR: { low: 0, high: 0 },
      DOORBELL_GVA: { low: 0, high: 0 },
      BLOB: { low: 0, high: 0 },
      PAGES: { low: 0, high: 0 },
      FILTER: { low: 0, high: 0 },
      RSS: { low: 0, high: 0 },
    },
    featuresNegotiated: false,
    selectedFeatures: 0,
    abilities: 0,
    events: 0,
    verdictInfo: 0,
    filter: newFilterState(),
    rss: newRssState(),
    coalesce: 0,
    dump: "",
    dumpOffset: 0,
  };
}

export function newFilterState(): FilterState {
  return { mode: FILTER_MODE.ALL, result: FILTER_RESULT.OK, addresses: [] };
}

export function newRssState(): RssState {
  return { flags: 0, types: 0, key: [], table: [], result: RSS_RESULT.OK };
}

/** What the engine does for these settings; null: nothing. */
export function steeringOf({ flags, types, key, table }: RssState): Steering | null {
  if (flags === 0) return null;
  return {
    hash: new FlowHash(key, types),
    table: flags & RSS_FLAG.STEER ? Uint8Array.from(table) : null,
    report: (flags & RSS_FLAG.REPORT) !== 0,
  };
}

/** The filter in use; null: every packet passes. */
export function receiveFilter({ filter, abilities }: NicState): ReceiveFilter | null {
  const { mode, addresses } = filter;
  if (!(abilities & ABILITY.FILTER) || mode === FILTER_MODE.ALL) return null;
  return new ReceiveFilter(addresses, mode === FILTER_MODE.ALL_MULTICAST);
}

/** How long the interrupts of a direction are held back. */
export interface Coalescing {
  readonly us: number;
  readonly adaptive: boolean;
}

/** The coalescing in use. */
export function coalescing({ coalesce, abilities }: NicState): { rx: Coalescing; tx: Coalescing } {
  const word = abilities & ABILITY.COALESCE ? coalesce : 0;
  return { rx: coalescingOf(word & 0xffff), tx: coalescingOf(word >>> 16) };
}

/** @param half of the COALESCE register */
export function coalescingOf(half: number): Coalescing {
  return { us: half & ~COALESCE_ADAPTIVE, adaptive: (half & COALESCE_ADAPTIVE) !== 0 };
}

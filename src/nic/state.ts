/**
 * The register state of a NIC: one plain record that reset replaces. Queues and the generation keep
 * their own state (src/engine/queue.ts, generation.ts).
 */

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
export const LATCHES = ["CTX_PADDR", "DOORBELL_GVA", "BLOB", "PAGES"] as const;
export type LatchName = (typeof LATCHES)[number];

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
    },
    featuresNegotiated: false,
    selectedFeatures: 0,
    abilities: 0,
    events: 0,
    verdictInfo: 0,
    dump: "",
    dumpOffset: 0,
  };
}

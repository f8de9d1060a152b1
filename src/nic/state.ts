/**
 * All state of a NIC that the guest can see or depends on: one plain record, so that it can be handed to
 * another worker or process. Nothing here is a function, a descriptor or a pointer.
 */

/** How a queue's context was registered; pages are guest addresses. */
export interface ContextRecord {
  readonly kind: "contiguous" | "pages";
  /** Guest address of the context, or of the page list. */
  readonly address: number;
  readonly pages: readonly number[];
  /** Bytes. */
  readonly size: number;
}

export interface QueueRecord {
  context: ContextRecord | null;
  /** The ring half's own position (see HostRing.save); null: what the guest left in the context. */
  position: number | null;
}

export interface NicState {
  rxEnabled: boolean;
  txEnabled: boolean;
  upgradePending: boolean;
  busMaster: boolean;
  queueSelect: number;
  contextLow: number;
  contextHigh: number;
  pagesLow: number;
  pagesHigh: number;
  blobLow: number;
  blobHigh: number;
  programSelect: number;
  doorbellGvaLow: number;
  doorbellGvaHigh: number;
  selectedFeatures: number;
  featuresNegotiated: boolean;
  abilities: number;
  events: number;
  generation: number;
  verdictInfo: number;
  dumpOffset: number;
  dump: string;
  queues: QueueRecord[];
}

/** The state after reset. `queues` is receive queues first, then transmit queues. */
export function newNicState(pairs: number): NicState {
  return {
    rxEnabled: false,
    txEnabled: false,
    upgradePending: false,
    busMaster: false,
    queueSelect: 0,
    contextLow: 0,
    contextHigh: 0,
    pagesLow: 0,
    pagesHigh: 0,
    blobLow: 0,
    blobHigh: 0,
    programSelect: 0,
    doorbellGvaLow: 0,
    doorbellGvaHigh: 0,
    selectedFeatures: 0,
    featuresNegotiated: false,
    abilities: 0,
    events: 0,
    generation: 1,
    verdictInfo: 0,
    dumpOffset: 0,
    dump: "",
    queues: Array.from({ length: 2 * pairs }, () => ({ context: null, position: 0 })),
  };
}

/**
 * The register state of a NIC: one plain record, so that it can be handed to another worker or
 * process. The queues keep theirs (src/engine/queue.ts).
 */

export interface NicState {
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
}

/** The state after reset. */
export function newNicState(): NicState {
  return {
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
  };
}

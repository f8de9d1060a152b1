import type { RingFormat } from "../format.ts";
import { initialiseSring, SringRx, SringTx } from "./host.ts";
import { sringContextSize } from "./layout.ts";

/** The simple ring: one descriptor per packet, no offloads. */
export const sringRing: RingFormat = {
  name: "sring",
  features: 0,
  contextSize: sringContextSize,
  initialise: initialiseSring,
  tx: (config) => new SringTx(config),
  rx: (config) => new SringRx(config),
};

import type { RingFormat } from "../format.ts";
import { initialiseSring } from "../sring/control-words.ts";
import { SringGsoRx, SringGsoTx } from "./host.ts";
import { sringGsoContextSize } from "./layout.ts";

/** The ring with offloads: several descriptors per packet, checksums and segmentation left to the other side. */
export const sringGsoRing: RingFormat = {
  name: "sring_gso",
  features: 0x1ff,
  contextSize: sringGsoContextSize,
  initialise: initialiseSring,
  tx: (config) => new SringGsoTx(config),
  rx: (config) => new SringGsoRx(config),
};

import type { Device } from "../device.ts";
import { initialiseSring } from "../sring/half.ts";
import { SringGsoRx, SringGsoTx } from "./host.ts";
import { sringGsoContextSize } from "./layout.ts";
import { sringGsoPrograms } from "./programs.ts";

/** The ring with offloads: several descriptors per packet, checksums and segmentation left to the other side. */
export const sringGso: Device = {
  name: "sring_gso",
  features: 0x1ff,
  contextSize: sringGsoContextSize,
  programs: sringGsoPrograms,
  initialise: initialiseSring,
  tx: (config) => new SringGsoTx(config),
  rx: (config) => new SringGsoRx(config),
};

import type { Device } from "../device.ts";
import { initialiseSring, SringRx, SringTx } from "./host.ts";
import { sringContextSize } from "./layout.ts";
import { sringPrograms } from "./programs.ts";

/** The simple ring: one descriptor per packet, no offloads. */
export const sring: Device = {
  name: "sring",
  features: 0,
  contextSize: sringContextSize,
  programs: sringPrograms,
  initialise: initialiseSring,
  tx: (config) => new SringTx(config),
  rx: (config) => new SringRx(config),
};

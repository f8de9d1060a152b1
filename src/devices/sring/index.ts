import type { Device } from "../format.ts";
import { sringPrograms } from "./programs.ts";
import { sringRing } from "./ring.ts";

/** The simple ring: one descriptor per packet, no offloads. */
export const sring: Device = { ...sringRing, programs: sringPrograms };

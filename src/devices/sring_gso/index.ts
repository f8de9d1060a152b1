import type { Device } from "../format.ts";
import { sringGsoPrograms } from "./programs.ts";
import { sringGsoRing } from "./ring.ts";

/** The ring with offloads: several descriptors per packet, checksums and segmentation left to the other side. */
export const sringGso: Device = { ...sringGsoRing, programs: sringGsoPrograms };

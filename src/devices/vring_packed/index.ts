import type { Device } from "../format.ts";
import { packedPrograms } from "./programs.ts";
import { vringPackedRing } from "./ring.ts";

/** VirtIO's packed virtqueue: one descriptor per packet, no offloads, event index both ways. */
export const vringPacked: Device = { ...vringPackedRing, programs: packedPrograms };

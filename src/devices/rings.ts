/** The host's sides of the devices that there are, by name; `index.ts` has them with their programs. */
import type { Ring } from "./device.ts";
import { sringRing } from "./sring/ring.ts";
import { sringGsoRing } from "./sring_gso/ring.ts";
import { vringPackedRing } from "./vring_packed/ring.ts";

export const RINGS: readonly Ring[] = [sringRing, sringGsoRing, vringPackedRing];

export function findRing(name: string): Ring | undefined {
  return RINGS.find((ring) => ring.name === name);
}

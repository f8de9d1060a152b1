/** The host's sides of the devices that there are, by name; `index.ts` has them with their programs. */
import type { RingFormat } from "./format.ts";
import { sringRing } from "./sring/ring.ts";
import { sringGsoRing } from "./sring_gso/ring.ts";
import { vringPackedRing } from "./vring_packed/ring.ts";

export const FORMATS: readonly RingFormat[] = [sringRing, sringGsoRing, vringPackedRing];

export function findFormat(name: string): RingFormat | undefined {
  return FORMATS.find((ring) => ring.name === name);
}

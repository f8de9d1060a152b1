/** The devices that there are, by name. */
import type { Device } from "./format.ts";
import { sring } from "./sring/index.ts";
import { sringGso } from "./sring_gso/index.ts";
import { vringPacked } from "./vring_packed/index.ts";

export const DEVICES: readonly Device[] = [sring, sringGso, vringPacked];

export function findDevice(name: string): Device | undefined {
  return DEVICES.find((device) => device.name === name);
}

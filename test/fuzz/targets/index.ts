/** All targets, in the order in which a campaign runs them. */
import type { Target } from "../target.ts";
import { FAULTY } from "./faulty.ts";
import { objects } from "./objects.ts";
import { proxy } from "./proxy.ts";
import { registers } from "./registers.ts";
import { rings } from "./rings.ts";
import { vfioUser } from "./vfio-user.ts";

/** A target runs only inputs that it generated. To all other code they are plain JSON. */
const plain = (target: unknown): Target => target as Target;

export const TARGETS: readonly Target[] = [vfioUser, proxy, objects, rings, registers].map(plain);

export const findTarget = (name: string): Target | undefined =>
  [...TARGETS, ...FAULTY.map(plain)].find((target) => target.name === name);

/** vring_packed's program sets: `guest.ts`, specialised for one ring size. */
import { PRIVATE_OFFSET } from "../../abi/index.ts";
import { programsOf } from "../programs.ts";
import * as layout from "./layout.ts";

export const packedPrograms = programsOf("vring_packed", import.meta.url, layout, ({ bufs }) => ({
  lapShift: Math.log2(bufs),
  states: PRIVATE_OFFSET + layout.stateOffset(bufs),
}));

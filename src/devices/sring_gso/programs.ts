/** sring_gso's program sets: `guest.ts`, specialised for one ring size. */
import { programsOf } from "../programs.ts";
import * as sring from "../sring/layout.ts";
import * as layout from "./layout.ts";

export const sringGsoPrograms = programsOf("sring_gso", import.meta.url, { ...sring, ...layout });

/** sring's program sets: `guest.ts`, specialised for one ring size. */
import { programsOf } from "../programs.ts";
import * as layout from "./layout.ts";

export const sringPrograms = programsOf("sring", import.meta.url, layout);

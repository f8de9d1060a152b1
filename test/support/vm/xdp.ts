/** Programs of XDP in a guest: `test/vm/xdp/xdp_program.c` says which. */
import { buildGuestProgram } from "./guest-program.ts";

/** Path in the guest of what attaches them. */
export const XDP_PROGRAM = "/extra/xdp_program";

/** Compiles what loads and attaches programs. @returns its path in the folder */
export const buildXdpProgram = (folder: string): string =>
  buildGuestProgram(folder, "test/vm/xdp/xdp_program.c");

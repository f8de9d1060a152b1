/** Programs of XDP in a guest: `test/vm/xdp/xdp_program.c` says which. */
import { execFileSync } from "node:child_process";
import { join } from "node:path";
import { packageRoot } from "../../../src/vm/guest-parts.ts";
import { patience } from "./time.ts";

/** Path in the guest of what attaches them. */
export const XDP_PROGRAM = "/extra/xdp_program";

/** Compiles what loads and attaches programs. @returns its path in the folder */
export function buildXdpProgram(folder: string): string {
  const path = join(folder, "xdp_program");
  const source = join(packageRoot(), "test/vm/xdp/xdp_program.c");
  execFileSync("cc", ["-static", "-O1", "-o", path, source], { timeout: patience(60_000) });
  return path;
}

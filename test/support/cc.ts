/** The machine's C compiler, for tests that compile parts of the guest module. */
import { execFileSync } from "node:child_process";

function hasCompiler(): boolean {
  try {
    execFileSync("cc", ["--version"], { stdio: "ignore", timeout: 60_000 });
    return true;
  } catch {
    return false;
  }
}

/** For `skip`. */
export const withoutCc = hasCompiler() ? false : "no C compiler (cc) here";

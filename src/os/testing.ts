/** For the tests of every room: what a process holds open. */
import { readdirSync } from "node:fs";

/** Number of open descriptors, the one used for looking not counted. */
export function openFds(): number {
  return readdirSync("/proc/self/fd").length - 1;
}

/** Whether this run must not skip tests that need `what` (BPFHV_REQUIRE, a comma list). */
export function requires(what: "vm" | "tap" | "bpf"): boolean {
  return (process.env.BPFHV_REQUIRE ?? "").split(",").includes(what);
}

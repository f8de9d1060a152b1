/**
 * Conditions of tests. A test that cannot run is skipped with the reason, unless BPFHV_REQUIRE
 * names its condition.
 */
import { existsSync } from "node:fs";
import { prepareGuest } from "./harness.ts";

/**
 * For `test(…, { skip })`: false if a VM with TAPs can run, else the reason.
 * @throws if BPFHV_REQUIRE has "vm" and it cannot
 */
export async function withoutVm(): Promise<string | false> {
  const reason = await whyNoVm();
  if (reason !== false && isRequired("vm")) throw new Error(`a VM is required: ${reason}`);
  return reason;
}

async function whyNoVm(): Promise<string | false> {
  if (process.getuid?.() !== 0) return "VM tests need root, for TAPs and network namespaces";
  if (!existsSync("/dev/net/tun")) return "VM tests need /dev/net/tun: modprobe tun";
  try {
    await prepareGuest();
    return false;
  } catch (error) {
    return `no VM can be prepared: ${error instanceof Error ? error.message : error}`;
  }
}

export function isRequired(what: "vm" | "tap" | "bpf"): boolean {
  return (process.env.BPFHV_REQUIRE ?? "").split(",").includes(what);
}

/** `script/test --full` requests long runs. */
export const isFull = process.env.BPFHV_FULL === "1";

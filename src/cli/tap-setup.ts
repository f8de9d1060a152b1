/** A TAP interface for one backend, made with iproute2 and removed again. */
import { execFileSync } from "node:child_process";
import { machineMac } from "../control/mac.ts";
import { failure } from "../errors.ts";
import { formatMac } from "../nic/config.ts";

export interface TapSetup {
  readonly name: string;
  readonly netns?: string;
  /** Address with prefix length. */
  readonly address?: string;
}

function ip({ netns }: TapSetup, ...words: string[]): void {
  const where = netns === undefined ? [] : ["-n", netns];
  execFileSync("ip", [...where, ...words], {
    stdio: ["ignore", "ignore", "pipe"],
    timeout: 10_000,
  });
}

/**
 * Makes the interface, with a MAC address derived from its name, so that the guest's ARP entry for
 * the host stays valid when another backend makes it anew.
 * @throws CommandError that says what failed; nothing is left behind
 */
export function setUpTap(tap: TapSetup): void {
  try {
    ip(tap, "tuntap", "add", "dev", tap.name, "mode", "tap");
  } catch (error) {
    throw failure(`cannot make the interface ${tap.name}: ${reason(error)}`);
  }
  try {
    ip(tap, "link", "set", "dev", tap.name, "address", formatMac(machineMac(tap.name)));
    if (tap.address !== undefined) ip(tap, "address", "add", tap.address, "dev", tap.name);
    ip(tap, "link", "set", "dev", tap.name, "up");
  } catch (error) {
    removeTap(tap);
    throw failure(`cannot set up the interface ${tap.name}: ${reason(error)}`);
  }
}

export function removeTap(tap: TapSetup): void {
  try {
    ip(tap, "link", "delete", "dev", tap.name);
  } catch {
    // Somebody else removed it: what was wanted.
  }
}

function reason(error: unknown): string {
  const { stderr, message } = error as Error & { stderr?: Buffer };
  const text = stderr?.toString().trim() ?? "";
  return text === "" ? message : text.replaceAll("\n", "; ");
}

/** MAC addresses that stay the same for the same thing, so that peers' ARP entries stay valid. */
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";

/** Locally administered, unicast. */
export function stableMac(name: string): Uint8Array {
  const hash = createHash("sha256").update(name).digest();
  return Uint8Array.from([0x52, 0x54, 0x00, hash[0], hash[1], hash[2]]);
}

const MACHINE_ID = "/etc/machine-id";

/**
 * For the NIC on the socket of this absolute path: hosts with equal paths give different addresses.
 * On a host without a machine-id the path is all there is.
 */
export function machineMac(path: string, machineId = MACHINE_ID): Uint8Array {
  return stableMac(`${idIn(machineId)} ${path}`);
}

function idIn(file: string): string {
  try {
    return readFileSync(file, "utf8").trim();
  } catch {
    return "";
  }
}

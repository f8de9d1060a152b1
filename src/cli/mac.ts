/** A MAC address that stays the same for the same name, so that peers' ARP entries stay valid. */
import { createHash } from "node:crypto";

/** Locally administered, unicast. */
export function stableMac(name: string): Uint8Array {
  const hash = createHash("sha256").update(name).digest();
  return Uint8Array.from([0x52, 0x54, 0x00, hash[0], hash[1], hash[2]]);
}

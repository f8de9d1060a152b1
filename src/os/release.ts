/** Releases what a thread that has ended left open (ledger.ts). */
import { heldBy, type Ledger } from "./ledger.ts";
import * as libc from "./libc.ts";
import { closePeer } from "./peer-close.ts";

/**
 * Closes the descriptors and unmaps the memory of a thread that has ended, and which no other
 * thread uses. Never blocks: some descriptors came from peers.
 */
export function releaseHeld(ledger: Ledger): void {
  const { fds, mappings } = heldBy(ledger);
  for (const fd of fds) closePeer(fd);
  for (const { address, length } of mappings) libc.munmap(address, length);
}

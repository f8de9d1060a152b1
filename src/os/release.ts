/** Releases what a thread that has ended left open (ledger.ts). */
import { heldBy, type Ledger } from "./ledger.ts";
import * as libc from "./libc.ts";
import { closePeer } from "./peer-close.ts";

const SHUT_RDWR = 2;

/**
 * Closes the descriptors and unmaps the memory of a thread that has ended, and which no other
 * thread uses. Never blocks: some descriptors came from peers.
 */
export function releaseHeld(ledger: Ledger): void {
  const { fds, mappings } = heldBy(ledger);
  for (const fd of fds) closeInOrder(fd);
  for (const { address, length } of mappings) libc.munmap(address, length);
}

/** Ends a connection so that its peer sees the end and no reset. Other descriptors are closed. */
export function closeInOrder(fd: number): void {
  if (libc.shutdownSocket(fd, SHUT_RDWR) === 0) discard(fd);
  closePeer(fd);
}

/**
 * Reads a socket that is shut down to its end. Closing it with unread bytes would reset the
 * connection, and QEMU aborts then.
 */
function discard(fd: number): void {
  while (libc.read(fd, libc.STRUCT_ADDRESS, 1024) > 0);
}

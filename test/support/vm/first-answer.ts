/**
 * Counts of lost packets start after a first reply. Before it, the kernels resolve each other's
 * hardware address: packets wait or are dropped meanwhile, which is not a fault of the NIC.
 */
import { patience } from "./time.ts";

/** A boot, a reload or a reset is finished by then, and a failed address resolution is repeated. */
const WAIT_SECONDS = 15;

export interface Waiting {
  /** The ping program; in the guest it is on the path. */
  readonly ping?: string;
  readonly seconds?: number;
}

/**
 * Returns shell commands that ping `address` until its first reply. The shell exits with status 1
 * and a message if there is none.
 */
export function untilAnswered(address: string, options: Waiting = {}): string {
  const { ping = "ping", seconds = Math.ceil(patience(WAIT_SECONDS * 1000) / 1000) } = options;
  return `tries=0
until ${ping} -n -q -c 1 -W 1 ${address} >/dev/null 2>&1; do
  tries=$((tries + 1))
  [ $tries -lt ${seconds} ] || { echo "${address} does not answer" >&2; exit 1; }
  sleep 0.1
done`;
}

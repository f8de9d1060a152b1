/**
 * Every count of lost packets begins after a first answer. Before it the kernels
 * ask for each other's hardware address: what is sent meanwhile waits or is
 * dropped by them, and that says nothing of the NIC.
 */
import { patience } from "./time.ts";

/** A boot, a reload or a reset is long over by then, and an address given up is asked for again. */
const WAIT_SECONDS = 15;

export interface Waiting {
  /** The program; in the guest it is on the path. */
  readonly ping?: string;
  readonly seconds?: number;
}

/**
 * Commands for a shell: pings `address` until it answers for the first time. The shell exits with
 * status 1, and a line that says so, if it does not.
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

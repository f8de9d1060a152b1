/**
 * Packets that an end of a link has received and sent, by its kernel's own counters. The result of
 * iperf3's client is not a measure: if the receiver's program gets no CPU time, it reports every
 * sent packet as received.
 */

/** Totals since boot. */
export interface NetCounters {
  /**
   * UDP datagrams that sockets received; below: those dropped because a socket was full or the
   * checksum was wrong.
   */
  readonly datagramsIn: number;
  readonly datagramErrors: number;
  readonly datagramsOut: number;
  /** Packets of the interface. */
  readonly packetsIn: number;
  readonly droppedIn: number;
  readonly packetsOut: number;
  readonly droppedOut: number;
}

/** Command that prints the input of `parseCounters`; in the guest, or in a namespace. */
export const SHOW_COUNTERS = "cat /proc/net/snmp /proc/net/dev";

/** @throws Error if the text lacks them */
export function parseCounters(text: string, device: string): NetCounters {
  const [names, values] = [...text.matchAll(/^Udp: (.+)$/gm)].map((m) => m[1]!.split(" "));
  const words = new RegExp(`^ *${device}:(.+)$`, "m").exec(text)?.[1]?.trim().split(/ +/);
  if (names === undefined || values === undefined || words === undefined) {
    throw new Error(`no counters of UDP and ${device} in: ${text}`);
  }
  const udp = (name: string): number => Number(values[names.indexOf(name)]);
  const [packetsIn, droppedIn, packetsOut, droppedOut] = [1, 3, 9, 11].map((i) => Number(words[i]));
  const counters = {
    datagramsIn: udp("InDatagrams"),
    // Includes RcvbufErrors.
    datagramErrors: udp("InErrors"),
    datagramsOut: udp("OutDatagrams"),
    ...{ packetsIn: packetsIn!, droppedIn: droppedIn! },
    ...{ packetsOut: packetsOut!, droppedOut: droppedOut! },
  };
  if (Object.values(counters).some(Number.isNaN)) throw new Error(`counters missing in: ${text}`);
  return counters;
}

/** Returns the difference from `before` to `after`. */
export function added(before: NetCounters, after: NetCounters): NetCounters {
  const entries = Object.entries(after) as [keyof NetCounters, number][];
  return Object.fromEntries(
    entries.map(([name, value]) => [name, value - before[name]]),
  ) as unknown as NetCounters;
}

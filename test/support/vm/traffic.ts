/** Measures traffic between a guest and a namespace of the host: iperf3 and ping, both ways. */

import { added, type NetCounters, parseCounters, SHOW_COUNTERS } from "./datagrams.ts";
import { untilAnswered } from "./first-answer.ts";
import type { Guest, GuestParts, Netns } from "./harness.ts";
import { patience, until } from "./time.ts";

/** Small UDP packets in one direction. */
export interface UdpResult {
  /** Datagrams per second that the receiver's socket took: what a program could read. */
  readonly pps: number;
  /** Packets per second that the receiver's interface received. */
  readonly nicPps: number;
  /** Datagrams per second that the sender's socket sent. */
  readonly offeredPps: number;
  /** Duration of the flow. */
  readonly seconds: number;
  readonly sender: NetCounters;
  readonly receiver: NetCounters;
}

export interface PingResult {
  readonly sent: number;
  readonly received: number;
  /** Average round trip in milliseconds. */
  readonly rttMs: number;
}

interface IperfReport {
  readonly error?: string;
  readonly end: {
    readonly sum_received?: { readonly bits_per_second: number };
    readonly sum?: { readonly seconds: number };
  };
}

export type Direction = "from guest" | "to guest";

/** Payload of a "small" packet in bytes. */
const SMALL = 64;
/** iperf3's setup and teardown, both slow in an emulated guest. */
const SLACK_MS = 30_000;
/** By then the queues of a link are empty. */
const SETTLE_MS = 10_000;
/** Neighbour discovery continues. */
const QUIET_PACKETS = 5;

/** A guest and the host side of one of its NICs. */
export class Link {
  readonly #guest: Guest;
  readonly #netns: Netns;
  readonly #parts: GuestParts;
  readonly host: string;
  readonly peer: string;
  readonly #port: number;
  /** Interfaces of the two ends, the guest's first. */
  #devices: [string, string] | null = null;

  /**
   * `host` and `peer` are the two ends' IPv4 addresses. Starts
   * an iperf3 server on the host's `port`.
   */
  constructor(
    options: { guest: Guest; netns: Netns; parts: GuestParts; host: string; peer: string },
    port = 5201,
  ) {
    this.#guest = options.guest;
    this.#netns = options.netns;
    this.#parts = options.parts;
    this.host = options.host;
    this.peer = options.peer;
    this.#port = port;
    const server = [options.parts.iperf3, "-s", "-B", options.host, "-p", String(port)];
    // Unread pipes would fill and block it.
    const child = options.netns.spawn(server);
    child.stdout?.resume();
    child.stderr?.resume();
  }

  async tcp(direction: Direction, seconds: number): Promise<number> {
    const report = await this.#iperf(direction, seconds, "");
    const { sum_received: received } = report.end;
    if (received === undefined) throw new Error(`iperf3 ${direction} says nothing of the receiver`);
    return received.bits_per_second / 1e6;
  }

  /**
   * Sends small packets at the sender's full rate, or at `rate` (in iperf3's syntax: "4M"), counted
   * by the receiver's kernel.
   */
  async udp(direction: Direction, seconds: number, rate = "0"): Promise<UdpResult> {
    const before = await this.#counters();
    const report = await this.#iperf(direction, seconds, `-u -b ${rate} -l ${SMALL}`);
    const after = await this.#settled();
    const took = report.end.sum?.seconds ?? seconds;
    const guest = added(before.guest, after.guest);
    const host = added(before.host, after.host);
    const [sender, receiver] = direction === "to guest" ? [host, guest] : [guest, host];
    return {
      pps: receiver.datagramsIn / took,
      nicPps: receiver.packetsIn / took,
      offeredPps: sender.datagramsOut / took,
      ...{ seconds: took, sender, receiver },
    };
  }

  async #counters(): Promise<{ guest: NetCounters; host: NetCounters }> {
    this.#devices ??= [
      deviceIn(await this.#guest.check(`ip -o -4 addr show to ${this.peer}`)),
      deviceIn(this.#netns.exec(["ip", "-o", "-4", "addr", "show", "to", this.host])),
    ];
    const [guest, host] = this.#devices;
    return {
      guest: parseCounters(await this.#guest.check(SHOW_COUNTERS), guest),
      host: parseCounters(this.#netns.exec(SHOW_COUNTERS.split(" ")), host),
    };
  }

  /**
   * Returns the counters after the queues of a flow are
   * empty: they must not count for the next one.
   */
  async #settled(): Promise<{ guest: NetCounters; host: NetCounters }> {
    let last = await this.#counters();
    await until(SETTLE_MS, "an end of a flow of packets", async () => {
      const now = await this.#counters();
      const moved = added(last.guest, now.guest).packetsIn + added(last.host, now.host).packetsIn;
      last = now;
      return moved < QUIET_PACKETS;
    });
    return last;
  }

  async #iperf(direction: string, seconds: number, flags: string): Promise<IperfReport> {
    const reverse = direction === "to guest" ? "-R" : "";
    const command = `iperf3 -J -c ${this.host} -p ${this.#port} -B ${this.peer} -t ${seconds} ${reverse} ${flags}`;
    const { status, output } = await this.#guest.run(command, {
      timeoutMs: seconds * 1000 + SLACK_MS,
    });
    if (!output.includes("{")) throw new Error(`${command}: status ${status}: ${output}`);
    const report = JSON.parse(output.slice(output.indexOf("{"))) as IperfReport;
    if (status !== 0 || report.error !== undefined) {
      throw new Error(`iperf3 ${direction} ${flags}: ${report.error ?? `status ${status}`}`);
    }
    return report;
  }

  /**
   * Pings the host from the guest, counted from the first reply on. @throws Error if there is none
   */
  async pingFromGuest(count: number, interval = 0.02): Promise<PingResult> {
    const { output } = await this.#guest.run(
      `${untilAnswered(this.host)}\n${answers("ping", this.host, count, interval)}`,
      { timeoutMs: count * interval * 1000 + SLACK_MS },
    );
    return parsePing(output, count);
  }

  /**
   * Pings the guest from the host, counted from the first reply on. @throws Error if there is none
   */
  pingFromHost(count: number, interval = 0.02): PingResult {
    const { ping } = this.#parts;
    const counted = answers(ping, this.peer, count, interval);
    const script = `${untilAnswered(this.peer, { ping })}\n${counted} || true`;
    return parsePing(this.#netns.exec(["sh", "-c", script], patience(45_000)), count);
  }
}

/** Returns the interface in a line of `ip -o addr`. */
function deviceIn(line: string): string {
  const name = /^\d+: (\S+)/.exec(line)?.[1];
  if (name === undefined) throw new Error(`no interface in "${line}"`);
  return name;
}

/** Least time that the last counted reply may take. */
const LAST_ANSWER_MS = 300;

/**
 * Returns a command that prints the sequence number of each reply, and the round trip. Ping waits
 * for a last reply only an interval or two round trips, whatever -W says, so a late one would count
 * as lost: it sends more than `count`, and the additional ones do not count.
 */
function answers(ping: string, address: string, count: number, interval: number): string {
  const more = Math.ceil(patience(LAST_ANSWER_MS) / 1000 / interval);
  const filter = "s/.*icmp_seq=\\([0-9]*\\) .*/seq \\1/p; /min.avg.max/p; /transmitted/p";
  return `${ping} -n -c ${count + more} -i ${interval} -W 2 ${address} | sed -n '${filter}'`;
}

/** @param count number of replies to check, from the first on */
function parsePing(output: string, count: number): PingResult {
  const sent = /(\d+) packets transmitted/.exec(output);
  const answered = new Set([...output.matchAll(/^seq (\d+)$/gm)].map(([, seq]) => Number(seq)));
  const rtt = /min\/avg\/max[^=]*= [\d.]+\/([\d.]+)\//.exec(output);
  if (sent === null || Number(sent[1]) < count) throw new Error(`ping said: ${output}`);
  return {
    sent: count,
    received: [...answered].filter((seq) => seq >= 1 && seq <= count).length,
    rttMs: rtt === null ? Number.POSITIVE_INFINITY : Number(rtt[1]),
  };
}

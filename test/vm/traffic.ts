/** Traffic between a guest and a namespace of the host, measured: iperf3 and ping, both ways. */
import type { Guest, GuestParts, Netns } from "./harness.ts";
import { patience } from "./time.ts";

/** One direction of small UDP packets. */
export interface UdpResult {
  /** Packets per second that arrived. */
  readonly pps: number;
  /** Packets that were sent and did not arrive (a sender without pacing loses some at the socket). */
  readonly lost: number;
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
    readonly sum?: {
      readonly packets: number;
      readonly lost_packets: number;
      readonly seconds: number;
    };
  };
}

/** Payload of a "small" packet in bytes. */
const SMALL = 64;
/** iperf3 sets up and tears down, and an emulated guest is slow at both. */
const SLACK_MS = 20_000;

/** A guest and the host side of one of its NICs. */
export class Link {
  readonly #guest: Guest;
  readonly #netns: Netns;
  readonly #parts: GuestParts;
  readonly host: string;
  readonly peer: string;
  readonly #port: number;

  /** `host` and `peer` are the two ends' IPv4 addresses. Starts an iperf3 server on `port` of the host's. */
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
    // Unread pipes would fill and stop it.
    const child = options.netns.spawn(server);
    child.stdout?.resume();
    child.stderr?.resume();
  }

  async tcp(direction: "from guest" | "to guest", seconds: number): Promise<number> {
    const report = await this.#iperf(direction, seconds, "");
    return (report.end.sum_received?.bits_per_second ?? 0) / 1e6;
  }

  async udp(direction: "from guest" | "to guest", seconds: number): Promise<UdpResult> {
    const report = await this.#iperf(direction, seconds, `-u -b 0 -l ${SMALL}`);
    const { packets = 0, lost_packets: lost = 0, seconds: took = 1 } = report.end.sum ?? {};
    return { pps: (packets - lost) / took, lost };
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

  /** From the guest to the host. */
  async pingFromGuest(count: number, interval = 0.02): Promise<PingResult> {
    const { output } = await this.#guest.run(
      `ping -n -q -c ${count} -i ${interval} -W 2 ${this.host}`,
      { timeoutMs: count * interval * 1000 + SLACK_MS },
    );
    return parsePing(output);
  }

  /** From the host to the guest. */
  pingFromHost(count: number, interval = 0.02): PingResult {
    const words = ["-n", "-q", "-c", `${count}`, "-i", `${interval}`, "-W", "2", this.peer];
    return parsePing(this.#netns.exec([this.#parts.ping, ...words], patience(30_000)));
  }
}

function parsePing(output: string): PingResult {
  const counts = /(\d+) packets transmitted, (\d+) (?:packets )?received/.exec(output);
  const rtt = /min\/avg\/max[^=]*= [\d.]+\/([\d.]+)\//.exec(output);
  if (counts === null) throw new Error(`ping said: ${output}`);
  return {
    sent: Number(counts[1]),
    received: Number(counts[2]),
    rttMs: rtt === null ? Number.POSITIVE_INFINITY : Number(rtt[1]),
  };
}

/**
 * Captures packets of an interface with dumpcap and decodes them with
 * tshark, independent of this project's code.
 */
import { execFileSync, spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Netns } from "./netns.ts";
import { isRequired } from "./requirements.ts";
import { sleep, until } from "./time.ts";

/** A TCP or UDP packet as decoded by tshark. */
export interface Frame {
  /** Length in bytes, including the Ethernet header. */
  readonly length: number;
  /** The checksums of IPv4's header (IPv6 has none) and of TCP or UDP are correct. */
  readonly checksumsGood: boolean;
  readonly stream: number;
  readonly sourcePort: number;
  /** TCP sequence number, relative to the start of the connection. */
  readonly sequence: number;
  /** Length of the payload in bytes. */
  readonly payload: number;
}

const FIELDS = [
  ...["frame.len", "ip.checksum.status", "tcp.checksum.status", "udp.checksum.status"],
  ...["tcp.stream", "udp.stream", "tcp.srcport", "udp.srcport", "tcp.seq", "tcp.len"],
  "udp.length",
] as const;
/** tshark's value for a verified checksum. */
const GOOD = "1";
const UDP_HEADER = 8;
const START_MS = 10_000;
const READ_MS = 60_000;
/** The kernel passes packets to dumpcap in blocks: the last one would be lost without this wait. */
const SETTLE_MS = 500;

/**
 * For `test(…, { skip })`: false if tshark and ethtool can be run, else why not.
 * @throws if BPFHV_REQUIRE has "vm" and they cannot
 */
export function withoutTshark(): string | false {
  const missing = ["tshark", "ethtool"].find((name) => {
    return spawnSync(name, ["--version"], { stdio: "ignore" }).status !== 0;
  });
  if (missing === undefined) return false;
  if (isRequired("vm")) throw new Error(`${missing} is required: apt-get install ${missing}`);
  return `captures need ${missing}: apt-get install ${missing}`;
}

/** A running capture. */
export class Capture {
  readonly #folder = mkdtempSync(join(tmpdir(), "bpfhv-capture-"));
  readonly #file = join(this.#folder, "frames.pcapng");
  readonly #child;
  #said = "";

  private constructor(netns: Netns, device: string, filter: string) {
    const words = ["-q", "-i", device, "-f", filter, "-B", "64", "-w", this.#file];
    this.#child = netns.spawn(["dumpcap", ...words]);
    this.#child.stdout?.resume();
    this.#child.stderr?.on("data", (chunk) => {
      this.#said += chunk;
    });
  }

  /**
   * Starts a capture; `filter` in pcap's syntax, such as "tcp
   * port 5201". Resolves when it is active.
   */
  static async start(netns: Netns, device: string, filter: string): Promise<Capture> {
    const capture = new Capture(netns, device, filter);
    await until(START_MS, `dumpcap on ${device}`, () => capture.#said.includes("File: "));
    return capture;
  }

  /** Stops the capture. @throws if frames were missed, because the result is incomplete then */
  async stop(): Promise<Frame[]> {
    try {
      await sleep(SETTLE_MS);
      this.#child.kill("SIGINT");
      await until(START_MS, "dumpcap to end", () => this.#child.exitCode !== null);
      if (!/received\/dropped on interface \S+ \d+\/0 /.test(this.#said)) {
        throw new Error(`dumpcap missed frames: ${this.#said}`);
      }
      return readFrames(this.#file);
    } finally {
      this.#child.kill("SIGKILL");
      rmSync(this.#folder, { recursive: true, force: true });
    }
  }
}

function readFrames(file: string): Frame[] {
  const checked = ["ip", "tcp", "udp"].flatMap((name) => ["-o", `${name}.check_checksum:TRUE`]);
  const words = ["-n", "-r", file, ...checked, "-Y", "tcp or udp", "-T", "fields"];
  const output = execFileSync("tshark", [...words, ...FIELDS.flatMap((field) => ["-e", field])], {
    ...{ encoding: "utf8", timeout: READ_MS, maxBuffer: 256 << 20 },
    stdio: ["ignore", "pipe", "ignore"],
  });
  return output.split("\n").flatMap((line) => (line === "" ? [] : [frameOf(line.split("\t"))]));
}

function frameOf([length, ip, tcp, udp, ...words]: string[]): Frame {
  const [tcpStream, udpStream, tcpPort, udpPort, sequence, tcpLength, udpLength] = words;
  return {
    length: Number(length),
    checksumsGood: [ip, tcp, udp].every((status) => status === "" || status === GOOD),
    stream: Number(tcpStream || udpStream),
    sourcePort: Number(tcpPort || udpPort),
    sequence: Number(sequence),
    payload: tcpLength === "" ? Number(udpLength) - UDP_HEADER : Number(tcpLength),
  };
}

/**
 * Returns the payload of one side of one TCP connection: its
 * contiguous bytes, and each segment's length.
 */
export function payloadOf(frames: readonly Frame[]): {
  readonly bytes: number;
  /** Frames that arrived before an earlier one of the stream. */
  readonly holes: number;
  readonly sizes: readonly number[];
} {
  let next = 1;
  let holes = 0;
  const sizes: number[] = [];
  for (const { sequence, payload } of frames) {
    if (payload === 0) continue;
    if (sequence > next) holes++;
    next = Math.max(next, sequence + payload);
    sizes.push(payload);
  }
  return { bytes: next - 1, holes, sizes };
}

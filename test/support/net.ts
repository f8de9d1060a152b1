/**
 * For tests: ports of each type with a remote end, which sends
 * frames to the port and receives from it.
 */
import { execFileSync, spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Batch } from "../../src/memory/index.ts";
import { LoopbackPort } from "../../src/net/loopback.ts";
import { PcapPort } from "../../src/net/pcap.ts";
import type { Port } from "../../src/net/port.ts";
import { SourcePort } from "../../src/net/synthetic.ts";
import { TapPort } from "../../src/net/tap.ts";
import { close } from "../../src/os/fd.ts";
import { type Mapping, mapAnonymous } from "../../src/os/memory.ts";
import { openTap } from "../../src/os/tap.ts";
import { read, write } from "../../src/os/vector-io.ts";
import { requires } from "./os.ts";

/** EtherType of frames that tests send ("local experimental", IEEE 802): the kernel sends none. */
export const TEST_TYPE = 0x88b5;
/** Number of probe frames, which only test the path. */
const PROBE = 0xffff_ffff;

/**
 * Returns a broadcast of TEST_TYPE: `number`, then bytes that depend on it and on their position.
 */
export function testFrame(number: number, length: number): Uint8Array {
  const frame = Uint8Array.from({ length }, (_, i) => i * 7 + number);
  frame.set([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x52, 0x54, 0, 0xaa, 0xbb, 0xcc]);
  new DataView(frame.buffer).setUint16(12, TEST_TYPE);
  if (length >= 18) new DataView(frame.buffer).setUint32(14, number);
  return frame;
}

/** False for a frame that the kernel sends on its own. */
export function isTestFrame(frame: Uint8Array): boolean {
  const view = new DataView(frame.buffer, frame.byteOffset, frame.length);
  if (frame.length < 18 || view.getUint16(12) !== TEST_TYPE) return false;
  return view.getUint32(14) !== PROBE;
}

export interface Outside {
  readonly port: Port;
  /** Returns frames sent by the port since the last call, or all frames of a capture. */
  sent(): Uint8Array[];
  close(): void;
}

export interface OutsideOptions {
  /** Frames that the port delivers, in order. A source repeats the first one. */
  readonly frames: readonly Uint8Array[];
  readonly metadata: boolean;
}

/** Opens a port whose remote end sends frames. */
export type OpenOutside = (options: OutsideOptions) => Outside;

/** Returns packets of one segment each, in memory of their own. */
export function batchOf(
  frames: readonly Uint8Array[],
  metadata: boolean,
): { batch: Batch; memory: Mapping } {
  const memory = mapAnonymous(frames.reduce((sum, frame) => sum + frame.length, 1));
  const bytes = new Uint8Array(memory.view(0, memory.length));
  const batch = new Batch(Math.max(frames.length, 1));
  batch.metadata = metadata;
  let at = 0;
  for (const frame of frames) {
    bytes.set(frame, at);
    batch.push(memory.address + at, frame.length, 0);
    at += frame.length;
  }
  return { batch, memory };
}

function openLoopback({ frames, metadata }: OutsideOptions): Outside {
  const port = new LoopbackPort("drop");
  const { batch, memory } = batchOf(frames, metadata);
  port.send(batch);
  memory.unmap();
  return { port, sent: () => [], close: () => port.close() };
}

function openSource({ frames }: OutsideOptions): Outside {
  const port = new SourcePort({ frame: frames[0], count: frames.length });
  return { port, sent: () => [], close: () => port.close() };
}

/**
 * Returns a capture in the classic format, nanoseconds, little endian.
 * `whole`: original lengths of the packets.
 */
export function captureOf(
  frames: readonly Uint8Array[],
  whole = frames.map((frame) => frame.length),
): Buffer {
  const head = Buffer.from("4d3cb2a1020004000000000000000000000004000100000", "hex");
  const parts = [Buffer.concat([head, Buffer.alloc(24 - head.length)])];
  for (const [i, frame] of frames.entries()) {
    const record = Buffer.alloc(16);
    record.writeUInt32LE(frame.length, 8);
    record.writeUInt32LE(whole[i], 12);
    parts.push(record, Buffer.from(frame));
  }
  return Buffer.concat(parts);
}

/** Returns the records of a capture written by this project. @throws if one is truncated */
export function recordsOf(capture: Buffer): Buffer[] {
  const records: Buffer[] = [];
  for (let at = 24; at < capture.length; ) {
    const length = capture.readUInt32LE(at + 8);
    if (at + 16 + length > capture.length) throw new Error(`record ${records.length} is truncated`);
    records.push(capture.subarray(at + 16, at + 16 + length));
    at += 16 + length;
  }
  return records;
}

function openPcap({ frames }: OutsideOptions): Outside {
  const folder = mkdtempSync(join(tmpdir(), "bpfhv-outside-"));
  const replay = join(folder, "in.pcap");
  const out = join(folder, "out.pcap");
  writeFileSync(replay, captureOf(frames));
  const port = new PcapPort({ replay, write: out });
  return {
    port,
    sent: () => recordsOf(readFileSync(out)),
    close: () => {
      port.close();
      rmSync(folder, { recursive: true });
    },
  };
}

let namespaces = 0;
const BRIDGE_MS = 5000;

/** Removes namespaces of killed test processes. */
function removeOrphans(): void {
  const all = existsSync("/run/netns") ? readdirSync("/run/netns") : [];
  for (const name of all) {
    const [, pid] = /^bpfhv-net-(\d+)-/.exec(name) ?? [];
    if (pid === undefined || existsSync(`/proc/${pid}`)) continue;
    // Another process may remove it at the same time.
    spawnSync("ip", ["netns", "delete", name]);
  }
}

/** Two TAPs on a bridge, in a namespace: a frame written to one is received by the other. */
export class TapPair {
  readonly netns = `bpfhv-net-${process.pid}-${namespaces++}`;
  readonly #peer: number;
  readonly #memory = mapAnonymous(1 << 17);
  readonly #bytes = new Uint8Array(this.#memory.view(0, 1 << 17));

  constructor() {
    const { netns } = this;
    removeOrphans();
    execFileSync("ip", ["netns", "add", netns]);
    const run = ["netns", "exec", netns, "sh", "-c"];
    execFileSync("ip", [...run, "echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6 || true"]);
    const peer = { name: "peer", vnetHeader: 0, offloads: 0, netns, create: true } as const;
    this.#peer = openTap(peer).fd;
    this.#ip("tuntap", "add", "dev", "nic", "mode", "tap");
    this.#ip("link", "add", "br0", "type", "bridge", "mcast_snooping", "0");
    for (const tap of ["peer", "nic"]) {
      this.#ip("link", "set", "dev", tap, "master", "br0", "mtu", "65521", "up");
    }
    this.#ip("link", "set", "dev", "br0", "up");
  }

  /** Writes a frame. @returns bytes written, or minus errno */
  give(frame: Uint8Array): number {
    this.#bytes.set(frame);
    return write(this.#peer, this.#memory.address, frame.length);
  }

  /**
   * Waits for the bridge, which forwards only some time after a port
   * has a carrier. @param fd of the other TAP
   */
  waitForBridge(fd: number): void {
    const probe = testFrame(PROBE, 60);
    const until = performance.now() + BRIDGE_MS;
    while (read(fd, this.#memory.address, 1 << 17) <= 0) {
      if (performance.now() > until) throw new Error(`${this.netns}: the bridge forwards nothing`);
      this.give(probe);
    }
    while (read(fd, this.#memory.address, 1 << 17) > 0);
  }

  /** As `waitForBridge`, if the other TAP was opened by a NIC: it gives the guest a probe. */
  waitUntilForwarding(): void {
    const until = performance.now() + BRIDGE_MS;
    const state = ["-n", this.netns, "-j", "-d", "link", "show", "dev", "nic"];
    while (!execFileSync("ip", state, { encoding: "utf8" }).includes('"state":"forwarding"')) {
      if (performance.now() > until) throw new Error(`${this.netns}: the bridge forwards nothing`);
    }
  }

  /** Returns received frames. @param which selects frames; default: test frames */
  take(which: (frame: Uint8Array) => boolean = isTestFrame): Uint8Array[] {
    const frames: Uint8Array[] = [];
    for (let n = 0; ; ) {
      n = read(this.#peer, this.#memory.address, 1 << 17);
      if (n <= 0) return frames;
      const frame = this.#bytes.slice(0, n);
      if (which(frame)) frames.push(frame);
    }
  }

  close(): void {
    close(this.#peer);
    this.#memory.unmap();
    execFileSync("ip", ["netns", "delete", this.netns]);
  }

  #ip(...words: string[]): void {
    execFileSync("ip", ["-n", this.netns, ...words]);
  }
}

function openTapPair({ frames, metadata }: OutsideOptions): Outside {
  const pair = new TapPair();
  const { netns } = pair;
  const vnetHeader = metadata ? 12 : 0;
  const port = new TapPort(openTap({ name: "nic", vnetHeader, offloads: 0, netns }));
  pair.waitForBridge(port.fd);
  for (const frame of frames) pair.give(frame);
  return {
    port,
    sent: () => pair.take(() => true),
    close: () => {
      port.close();
      pair.close();
    },
  };
}

/** Returns why TAPs cannot be tested here; "" if they can. */
function missingForTap(): string {
  if (process.getuid?.() !== 0) return "needs root";
  if (!existsSync("/dev/net/tun")) return "needs /dev/net/tun";
  try {
    execFileSync("ip", ["netns", "list"], { stdio: "ignore" });
    return "";
  } catch {
    return "needs ip(8) from iproute2";
  }
}

/** For `test(…, { skip })`: false if TAPs can or must be tested. */
export function skipTap(): string | false {
  const missing = missingForTap();
  return missing === "" || requires("tap") ? false : missing;
}

export const OUTSIDES: ReadonlyMap<string, OpenOutside> = new Map([
  ["loopback", openLoopback],
  ["source", openSource],
  ["pcap", openPcap],
  ["tap", openTapPair],
]);

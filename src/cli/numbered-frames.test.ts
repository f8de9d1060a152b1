/** The frames of `drive`: told from others; with offloads, what a kernel takes, cuts, completes. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { existsSync, readSync, writeSync } from "node:fs";
import { describe, test } from "node:test";
import { requires } from "../../test/support/os.ts";
import { GSO_NONE, GSO_TCP_V6, GSO_UDP } from "../memory/index.ts";
import { close } from "../os/fd.ts";
import { openTap } from "../os/tap.ts";
import { NumberedFrames } from "./numbered-frames.ts";

const ALL_OFFLOADS = 0x7f;
const LONGEST = 40_000;
const FULL = process.env.BPFHV_FULL === "1";
/** Each kind many times: lengths of frames and segments follow from the number. */
const NUMBERS = Array.from({ length: FULL ? 20_000 : 700 }, (_, n) => (n < 350 ? n : n * 613));

const u16 = (bytes: Uint8Array, at: number): number => (bytes[at] << 8) | bytes[at + 1];

/** RFC 1071: over all of it, its checksum field included, this is 0xffff. */
function sumOf(bytes: Uint8Array, more = 0): number {
  let sum = more;
  for (let i = 0; i < bytes.length; i += 2) sum += (bytes[i] << 8) | (bytes[i + 1] ?? 0);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return sum;
}

interface Parsed {
  readonly v6: boolean;
  readonly protocol: number;
  /** From the start of UDP or TCP, as long as IP says. */
  readonly carried: Uint8Array;
  readonly pseudo: number;
  /** In 8 bytes; and whether more follow. */
  readonly fragment: number;
}

/** Checks IP's own lengths and checksum. */
function parse(frame: Uint8Array): Parsed {
  const v6 = u16(frame, 12) === 0x86dd;
  const start = v6 ? 54 : 34;
  const length = v6 ? u16(frame, 18) : u16(frame, 16) - 20;
  assert.ok(start + length <= frame.length && frame.length - start - length < 60, "IP's length");
  if (!v6) assert.equal(sumOf(frame.subarray(14, 34)), 0xffff, "IP's checksum");
  const protocol = v6 ? frame[20] : frame[23];
  const carried = frame.subarray(start, start + length);
  const addresses = frame.subarray(v6 ? 22 : 26, start);
  const pseudo = sumOf(addresses, protocol + length);
  return { v6, protocol, carried, pseudo, fragment: v6 ? 0 : u16(frame, 20) };
}

const headerBytes = (protocol: number): number => (protocol === 17 ? 8 : 20);

describe("numbered frames", () => {
  const frames = new NumberedFrames({ offloads: ALL_OFFLOADS, longest: LONGEST });

  test("each is known by its number, and any changed byte or metadata is found", () => {
    for (const number of NUMBERS) {
      const frame = frames.make(number).slice();
      const metadata = frames.metadata(number).slice();
      assert.equal(frames.check(frame, metadata), number);
      const at = 14 + (number % (frame.length - 14));
      frame[at] ^= 0x40;
      assert.ok(frames.check(frame, metadata) < 0, `byte ${at} of ${number}`);
      frame[at] ^= 0x40;
      metadata[number % 10] ^= 1;
      assert.equal(frames.check(frame, metadata), -2);
      assert.ok(frames.check(frame.subarray(0, frame.length - 1)) < 0, "too short");
    }
  });

  test("metadata and headers agree when a frame has a checksum to fill in, or is to be cut", () => {
    const kinds = new Set<number>();
    for (const number of NUMBERS) {
      const frame = frames.make(number);
      const view = new DataView(frames.metadata(number).buffer);
      const [flags, type] = [view.getUint8(0), view.getUint8(1)];
      if (flags === 0) {
        assert.equal(type, GSO_NONE);
        continue;
      }
      kinds.add(type);
      const [headers, size, start, offset] = [2, 4, 6, 8].map((at) => view.getUint16(at, true));
      const { v6, protocol, carried, pseudo } = parse(frame);
      assert.equal(v6, type === GSO_TCP_V6);
      assert.equal(start, v6 ? 54 : 34);
      assert.equal(carried.length, frame.length - start);
      assert.equal(offset, protocol === 17 ? 6 : 16);
      assert.equal(u16(carried, offset), pseudo, "the sum of the pseudo header");
      if (protocol === 17) assert.equal(u16(carried, 4), carried.length, "UDP's length");
      if (type === GSO_NONE) continue;
      assert.equal(headers, start + headerBytes(protocol));
      assert.ok(
        size > 0 && size % 8 === 0 && size < frame.length - headers,
        `${size} of ${number}`,
      );
    }
    assert.equal(kinds.size, 6);
  });

  test("only plain frames are made when nothing is offloaded", () => {
    const plain = new NumberedFrames({ size: 60 });
    for (let n = 0; n < 20; n++) {
      assert.equal(u16(plain.make(n), 12), 0x88b5);
      assert.deepEqual(plain.metadata(n), new Uint8Array(10));
      assert.equal(plain.check(plain.make(n).slice()), n);
    }
  });

  test("others are none of these", () => {
    for (const bytes of [0, 59, 60, 100]) assert.equal(frames.check(new Uint8Array(bytes)), -1);
    const arp = new Uint8Array(60);
    arp.set([8, 6], 12);
    assert.equal(frames.check(arp), -1);
    for (const number of [1, 2, 3]) {
      const other = frames.make(number).slice();
      other[number === 3 ? 22 : 26] ^= 1;
      assert.equal(frames.check(other), -1, "from another address");
    }
  });
});

const NS = `bpfhv-frames-${process.pid}`;
const ip = (...words: string[]) => execFileSync("ip", ["-n", NS, ...words], { stdio: "pipe" });

/** For a bridge of a TAP with metadata and one without, which gets what the kernel completed. */
function missingForBridge(): string | false {
  if (process.getuid?.() !== 0) return "needs root";
  if (!existsSync("/dev/net/tun")) return "needs /dev/net/tun";
  try {
    execFileSync("ip", ["netns", "add", NS], { stdio: "pipe" });
  } catch {
    return "needs ip(8) from iproute2 and network namespaces";
  }
  try {
    ip("link", "add", "br0", "type", "bridge");
    return false;
  } catch (error) {
    execFileSync("ip", ["netns", "delete", NS]);
    return `needs a bridge: ${error}`;
  }
}

class Bridge {
  readonly in = openTap({ name: "in", vnetHeader: 12, offloads: 0, create: true, netns: NS }).fd;
  readonly out = openTap({ name: "out", vnetHeader: 0, offloads: 0, create: true, netns: NS }).fd;
  readonly #buffer = new Uint8Array(65536);

  constructor() {
    for (const name of ["in", "out"]) ip("link", "set", name, "master", "br0", "up");
    ip("link", "set", "br0", "up", "mtu", "1500");
  }

  #write(packet: Uint8Array): number {
    try {
      return writeSync(this.in, packet);
    } catch (error) {
      return (error as { errno: number }).errno;
    }
  }

  /** @returns the frames that come of it */
  through(frame: Uint8Array, metadata: Uint8Array): Uint8Array[] {
    const packet = new Uint8Array(12 + frame.length);
    packet.set(metadata);
    packet.set(frame, 12);
    assert.equal(
      this.#write(packet),
      packet.length,
      `the kernel refuses ${Buffer.from(metadata).toString("hex")}`,
    );
    const got: Uint8Array[] = [];
    for (;;) {
      try {
        const n = readSync(this.out, this.#buffer);
        // The namespace's own neighbour discovery comes from other addresses.
        if (Buffer.compare(this.#buffer.subarray(6, 12), frame.subarray(6, 12)) !== 0) continue;
        got.push(this.#buffer.slice(0, n));
      } catch {
        return got;
      }
    }
  }

  close(): void {
    for (const fd of [this.in, this.out]) close(fd);
    execFileSync("ip", ["netns", "delete", NS]);
  }
}

/** What the segments carry, put together; their checksums are verified. */
function carriedBy(segments: readonly Uint8Array[], type: number): Buffer {
  const parts = segments.map((segment, i) => {
    assert.ok(segment.length <= 1514, `${segment.length} bytes`);
    const { protocol, carried, pseudo, fragment } = parse(segment);
    if (type === GSO_UDP) {
      const more = i < segments.length - 1 ? 0x2000 : 0;
      assert.equal(fragment & 0x2000, more, "more fragments");
      return carried;
    }
    assert.equal(sumOf(carried, pseudo), 0xffff, "UDP's or TCP's checksum");
    return carried.subarray(headerBytes(protocol));
  });
  const all = Buffer.concat(parts);
  if (type !== GSO_UDP) return all;
  const pseudo = sumOf(segments[0].subarray(26, 34), 17 + all.length);
  assert.equal(sumOf(all, pseudo), 0xffff, "UDP's checksum over all fragments");
  return all.subarray(8);
}

const why = missingForBridge();

test("a kernel cuts and completes every frame, and no byte is lost", {
  skip: why !== false && !requires("tap") ? why : false,
}, () => {
  const bridge = new Bridge();
  try {
    const frames = new NumberedFrames({ offloads: ALL_OFFLOADS, longest: LONGEST });
    for (const number of NUMBERS) {
      const frame = frames.make(number);
      const metadata = frames.metadata(number);
      const view = new DataView(metadata.buffer);
      const [flags, type] = metadata;
      const got = bridge.through(frame, metadata);
      if (flags === 0) {
        assert.equal(got.length, 1, `frame ${number}`);
        assert.ok(Buffer.compare(got[0], frame) === 0);
        continue;
      }
      const { protocol, carried } = parse(frame);
      const payload = carried.subarray(headerBytes(protocol));
      // Fragments carry UDP's header once, as data.
      const cut = type === GSO_UDP ? carried.length : payload.length;
      const segments = type === GSO_NONE ? 1 : Math.ceil(cut / view.getUint16(4, true));
      assert.equal(got.length, segments, `segments of frame ${number}, type ${type}`);
      assert.ok(Buffer.compare(carriedBy(got, type), payload) === 0, `bytes of ${number}`);
    }
  } finally {
    bridge.close();
  }
});

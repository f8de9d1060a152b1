/** Captures as they are: cut, foreign, huge, on a disk that is full. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import {
  closeSync,
  ftruncateSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, test } from "node:test";
import fc from "fast-check";
import { batchOf, captureOf, recordsOf, testFrame } from "../../test/support/net.ts";
import { openFds } from "../../test/support/os.ts";
import { Batch } from "../memory/index.ts";
import { mapAnonymous, viewsMade } from "../os/memory.ts";
import { packetBytes } from "./base.ts";
import { PcapPort } from "./pcap.ts";

/** Reads three GiB through, and not only their beginning. */
const FULL = process.env.BPFHV_FULL === "1";
const folder = mkdtempSync(join(tmpdir(), "bpfhv-pcap-"));
const file = join(folder, "a.pcap");
after(() => rmSync(folder, { recursive: true, force: true }));

interface Replayed {
  readonly frames: Uint8Array[];
  readonly dropped: number;
  readonly tooLong: number;
  readonly notice: string;
}

/** Takes all that the port replays, into buffers of 2048 bytes. */
function replayAll(port: PcapPort): Replayed {
  const memory = mapAnonymous(64 * 2048);
  const frames: Uint8Array[] = [];
  while (!port.receiveDrained) {
    const batch = new Batch(64, 64);
    for (let s = 0; s < 64; s++) batch.addSegment(memory.address + s * 2048, 2048);
    port.receive(batch);
    for (let p = 0; p < batch.packets; p++) frames.push(packetBytes(batch, p));
  }
  const { dropped, tooLong } = port;
  port.close();
  memory.unmap();
  return { frames, dropped, tooLong, notice: port.takeNotice() };
}

function replay(capture: Uint8Array): Replayed {
  writeFileSync(file, capture);
  return replayAll(new PcapPort({ replay: file }));
}

const FRAMES = [60, 1514, 200, 61].map((length, i) => testFrame(i, length));

describe("a replay", () => {
  test("skips, counts and reports packets that the capture holds in part", () => {
    const capture = captureOf(FRAMES, [60, 9000, 200, 1514]);
    const { frames, dropped, notice } = replay(capture);
    assert.deepEqual(frames, [FRAMES[0], FRAMES[2]]);
    assert.equal(dropped, 2);
    assert.match(notice, /a\.pcap: 2 packets replayed; not replayed: 2 of which it holds a part/);
  });

  test("gives the whole packets when the last one is truncated anywhere, and reports it", () => {
    const capture = captureOf(FRAMES);
    const last = capture.length - 61 - 16;
    for (let length = last + 1; length < capture.length; length++) {
      const { frames, notice } = replay(capture.subarray(0, length));
      assert.deepEqual(frames, FRAMES.slice(0, 3), `${length}`);
      assert.match(notice, /3 packets replayed; the rest is not: packet 4 is truncated/);
    }
    for (const length of [24, last, capture.length]) {
      assert.equal(replay(capture.subarray(0, length)).notice, "", "ends between packets");
    }
  });

  test("ends at a packet of impossible length, and reports it", () => {
    const capture = captureOf(FRAMES);
    capture.writeUInt32LE(262145, 24 + 16 + 60 + 8);
    const { frames, notice } = replay(capture);
    assert.deepEqual(frames, [FRAMES[0]]);
    assert.match(notice, /packet 2 says that it has 262145 bytes/);
  });

  test("skips and counts packets shorter than an Ethernet header", () => {
    const { frames, dropped, notice } = replay(
      captureOf([FRAMES[0], FRAMES[1].subarray(0, 13), new Uint8Array(0), FRAMES[3]]),
    );
    assert.deepEqual(frames, [FRAMES[0], FRAMES[3]]);
    assert.equal(dropped, 2);
    assert.match(notice, /2 shorter than an Ethernet header/);
  });

  test("reads both byte orders, micro- and nanoseconds", () => {
    for (const magic of ["a1b2c3d4", "a1b23c4d"]) {
      const little = captureOf(FRAMES);
      Buffer.from(magic, "hex").reverse().copy(little);
      assert.deepEqual(replay(little).frames, FRAMES, magic);
      const big = captureOf(FRAMES);
      Buffer.from(magic, "hex").copy(big);
      big.writeUInt32BE(1, 20);
      for (let at = 24; at < big.length; ) {
        const length = big.readUInt32LE(at + 8);
        big.writeUInt32BE(length, at + 8);
        big.writeUInt32BE(length, at + 12);
        at += 16 + length;
      }
      assert.deepEqual(replay(big).frames, FRAMES, `${magic}, big endian`);
    }
  });

  test("omits frame check sequences when the capture has them", () => {
    const capture = captureOf(FRAMES);
    // F bit, and two words of 16 bits.
    capture.writeUInt32LE(0x2400_0001, 20);
    assert.deepEqual(
      replay(capture).frames,
      FRAMES.map((frame) => frame.subarray(0, -4)),
    );
  });

  test("ends when the capture is damaged anywhere, and gives only bytes of it", () => {
    const whole = captureOf(FRAMES);
    const damage = fc.array(fc.tuple(fc.nat(whole.length - 1), fc.nat(255)), { maxLength: 6 });
    fc.assert(
      fc.property(damage, fc.nat(whole.length), (changes, length) => {
        const capture = Buffer.from(whole);
        // Magic and link type stay, so that it is opened.
        for (const [at, value] of changes) if (at >= 4 && (at < 20 || at > 23)) capture[at] = value;
        const bytes = capture.subarray(0, Math.max(length, 24));
        for (const frame of replay(bytes).frames) assert.ok(bytes.includes(Buffer.from(frame)));
      }),
      { numRuns: 500, seed: 17 },
    );
  });

  /** A file of three GiB, most of it a hole: packets that no guest has room for, and one more. */
  function writeHuge(): number {
    const fd = openSync(file, "w");
    let at = writeSync(fd, captureOf(FRAMES.slice(0, 1)));
    const header = Buffer.alloc(16);
    header.writeUInt32LE(262144, 8);
    header.writeUInt32LE(262144, 12);
    const last = captureOf(FRAMES.slice(1, 2)).subarray(24);
    let holes = 0;
    for (const most = FULL ? Number.POSITIVE_INFINITY : 40; at < 3 * 2 ** 30; holes++) {
      if (holes === most) {
        at += writeSync(fd, last, 0, last.length, at);
        // Impossible: what lies behind it is not read.
        header.writeUInt32LE(0xffff_ffff, 8);
      }
      writeSync(fd, header, 0, 16, at);
      if (holes === most) break;
      at += 16 + 262144;
    }
    ftruncateSync(fd, Math.max(at, 3 * 2 ** 30));
    if (FULL) writeSync(fd, last, 0, last.length, at);
    closeSync(fd);
    return holes;
  }

  test("streams a file over 2 GiB, in bounded memory", () => {
    const holes = writeHuge();
    assert.ok(statSync(file).size >= 3 * 2 ** 30);
    const before = process.memoryUsage().rss;
    const { frames, tooLong, notice } = replayAll(new PcapPort({ replay: file }));
    const grown = process.memoryUsage().rss - before;
    rmSync(file);
    assert.deepEqual(frames, [FRAMES[0], FRAMES[1]]);
    assert.equal(tooLong, holes);
    assert.match(notice, FULL ? /^$/ : /packet 43 says that it has 4294967295 bytes/);
    assert.ok(grown < 64 << 20, `${grown} bytes`);
  });

  const foreign: readonly [string, Buffer, RegExp][] = [
    ["pcapng", Buffer.from("0a0d0d0a1c0000004d3c2b1a01000000", "hex"), /editcap -F pcap/],
    ["gzip", Buffer.from("1f8b0800000000000003", "hex"), /gunzip/],
    ["something else", Buffer.alloc(100, 0x41), /not a classic capture/],
    ["empty", Buffer.alloc(0), /too short for a capture/],
    ["a truncated header", captureOf([]).subarray(0, 23), /too short for a capture/],
  ];
  for (const [what, bytes, message] of foreign) {
    test(`is refused with what to do when the file is ${what}`, () => {
      writeFileSync(file, bytes);
      assert.throws(() => new PcapPort({ replay: file }), { code: "PCAP", message });
    });
  }

  test("is refused when frames are not Ethernet", () => {
    const capture = captureOf(FRAMES);
    capture.writeUInt32LE(101, 20);
    writeFileSync(file, capture);
    assert.throws(() => new PcapPort({ replay: file }), {
      message: /link type 101: only Ethernet/,
    });
  });

  test("is refused with what to do when the file cannot be opened", () => {
    const missing = join(folder, "missing");
    const open = (path: string) => () => new PcapPort({ replay: path });
    assert.throws(open(missing), {
      code: "PCAP",
      message: /no such file; record one with tcpdump/,
    });
    assert.throws(open(folder), { code: "PCAP", message: /not a regular file/ });
    const fifo = join(folder, "fifo");
    execFileSync("mkfifo", [fifo]);
    assert.throws(open(fifo), { code: "PCAP", message: /not a regular file/ });
  });
});

describe("a capture", () => {
  test("is refused with what to do when the file cannot be made", () => {
    const open = (write: string) => () => new PcapPort({ write });
    assert.throws(open(join(folder, "x/y")), { code: "PCAP", message: /no such folder; make it/ });
    assert.throws(open(folder), { code: "PCAP", message: /EISDIR; name a file/ });
    assert.throws(open("/dev/null"), { code: "PCAP", message: /not a regular file/ });
  });

  test("leaves neither memory nor descriptors behind when it cannot be opened", () => {
    const before = [viewsMade(), openFds()];
    for (let n = 0; n < 5; n++) {
      assert.throws(() => new PcapPort({ replay: join(folder, "missing") }), { code: "PCAP" });
      assert.throws(() => new PcapPort({ write: join(folder, "x/y") }), { code: "PCAP" });
      assert.throws(() => new PcapPort({ write: "/dev/null" }), { code: "PCAP" });
    }
    assert.deepEqual([viewsMade(), openFds()], before);
  });

  test("is refused when it would overwrite the one that is replayed", () => {
    writeFileSync(file, captureOf(FRAMES));
    const both = { write: join(folder, ".", "a.pcap"), replay: file };
    assert.throws(() => new PcapPort(both), { code: "PCAP", message: /the file to replay/ });
    assert.deepEqual(recordsOf(readFileSync(file)).length, FRAMES.length);
  });

  /** Writes batches until packets are lost. @returns packets sent */
  function fill(port: PcapPort, frames: readonly Uint8Array[]): number {
    const { batch, memory } = batchOf(frames, false);
    let sent = 0;
    for (let n = 0; n < 1000 && port.dropped === 0; n++) sent += port.send(batch);
    memory.unmap();
    assert.ok(port.dropped > 0, "it was filled");
    return sent;
  }

  /** A capture that runs out of room, and gets some later. */
  function runOut(write: string, giveRoom: () => void): void {
    const frames = [1514, 60, 300].map((length, i) => testFrame(i, length));
    const port = new PcapPort({ write });
    const sent = fill(port, frames);
    const records = recordsOf(readFileSync(write));
    assert.equal(records.length, sent - port.dropped, "each is in the file, or counted");
    for (const [i, record] of records.entries()) {
      assert.equal(Buffer.compare(record, frames[i % 3]), 0, `record ${i}`);
    }
    assert.match(port.takeNotice(), /: (ENOSPC|EFBIG): packets are lost \(dropPort\)/);
    const { batch, memory } = batchOf(frames, false);
    assert.equal(port.send(batch), 3, "the guest continues");
    const lost = port.dropped;
    const size = statSync(write).size;
    giveRoom();
    assert.equal(port.send(batch), 3);
    assert.equal(port.dropped, lost, "no more are lost");
    assert.match(port.takeNotice(), new RegExp(`continues; ${lost} packets are missing`));
    port.close();
    memory.unmap();
    const all = recordsOf(readFileSync(write));
    assert.equal(all.length, sent + 6 - lost);
    assert.equal(readFileSync(write).length, size + 3 * 16 + 1514 + 60 + 300);
    assert.equal(Buffer.compare(Buffer.concat(all.slice(-3)), Buffer.concat(frames)), 0);
  }

  const root = process.getuid?.() === 0;
  test("stays readable on a full disk, and continues when there is room", {
    skip: root ? false : "needs root to mount a small file system",
  }, () => {
    const disk = join(folder, "disk");
    mkdirSync(disk);
    execFileSync("mount", ["-t", "tmpfs", "-o", "size=64k", "tmpfs", disk]);
    try {
      const ballast = join(disk, "ballast");
      writeFileSync(ballast, Buffer.alloc(16384));
      runOut(join(disk, "full.pcap"), () => rmSync(ballast));
    } finally {
      // Lazily: if an assertion failed, the capture is still open.
      execFileSync("umount", ["--lazy", disk]);
    }
  });

  test("stays readable at a limit of file sizes, which does not end the process", () => {
    const limit = (bytes: string) =>
      execFileSync("prlimit", ["--pid", `${process.pid}`, `--fsize=${bytes}:`]);
    const write = join(folder, "limited.pcap");
    limit("10000");
    try {
      runOut(write, () => limit("unlimited"));
    } finally {
      limit("unlimited");
    }
  });

  test("is refused when there is no room for its header", () => {
    const limit = (bytes: string) =>
      execFileSync("prlimit", ["--pid", `${process.pid}`, `--fsize=${bytes}:`]);
    const write = join(folder, "none.pcap");
    // The first one sees to it that the limit does not end the process.
    new PcapPort({ write }).close();
    limit("20");
    try {
      assert.throws(() => new PcapPort({ write }), { code: "PCAP", message: /make room/ });
      assert.equal(statSync(write).size, 0);
    } finally {
      limit("unlimited");
    }
  });
});

import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { Batch } from "../memory/index.ts";
import { mapAnonymous } from "../os/memory.ts";
import { packetBytes } from "./base.ts";
import { openPorts, parsePort } from "./create.ts";
import { PcapPort } from "./pcap.ts";
import { NullPort, SinkPort, SourcePort } from "./synthetic.ts";

/** A batch with `count` free segments of `size` bytes. */
function freeSegments(count: number, size: number, room = 0, maxPacket = 0): Batch {
  const memory = mapAnonymous(count * size);
  const batch = new Batch(64, 256);
  for (let s = 0; s < count; s++) batch.addSegment(memory.address + s * size, size);
  if (maxPacket > 0) batch.receiveInto(maxPacket, room);
  return batch;
}

test("ports are parsed when their words are valid", () => {
  assert.deepEqual(parsePort("sink"), { kind: "sink" });
  assert.deepEqual(parsePort("null"), { kind: "null" });
  assert.deepEqual(parsePort("tap:t0,netns=n,create"), {
    kind: "tap",
    tap: "t0",
    netns: "n",
    create: true,
  });
  assert.deepEqual(parsePort("source:size=100,count=5,rate=1000,number=14"), {
    kind: "source",
    size: 100,
    count: 5,
    rate: 1000,
    numberAt: 14,
  });
  assert.deepEqual(parsePort("pcap:write=a,replay=b"), { kind: "pcap", write: "a", replay: "b" });
});

for (const [words, message] of [
  ["wire", /unknown net "wire": use tap:NAME/],
  ["sink:fast", /sink takes no options/],
  ["tap", /say which interface/],
  ["tap:t0,fast", /unknown option "fast": there are netns=VALUE/],
  ["source:size=13", /size=13: use a whole number from 14 to 65535/],
  ["source:rate=fast", /rate=fast: use a whole number/],
  ["source:number=57", /number=57: use a whole number from 0 to 56/],
  ["source:content=xyz", /hexadecimal/],
  ["source:size=60,size=61", /size is given twice/],
  ["pcap", /say what to do/],
] as const) {
  test(`net "${words}" is refused with a reason`, () => {
    assert.throws(() => parsePort(words), { code: "PORT", message });
  });
}

test("source numbers its packets, up to its count, when they span segments", () => {
  const port = new SourcePort({ size: 100, count: 3, numberAt: 14 });
  const batch = freeSegments(10, 64, 100, 1518);
  port.receive(batch);
  assert.equal(batch.packets, 3);
  assert.equal(port.receiveDrained, true);
  for (let p = 0; p < 3; p++) {
    assert.equal(batch.first[p + 1], 2 * (p + 1));
    const packet = packetBytes(batch, p);
    assert.equal(packet.length, 100);
    assert.equal(new DataView(packet.buffer).getUint32(14), p);
  }
});

test("source counts packets and continues when they are longer than the guest's buffers", () => {
  const port = new SourcePort({ size: 100, count: 3 });
  const batch = freeSegments(10, 64);
  port.receive(batch);
  assert.equal(batch.packets, 0);
  assert.equal(port.tooLong, 3);
});

test("source generates one burst at most when it is behind its rate", async () => {
  const port = new SourcePort({ rate: 1e6 });
  await new Promise((resolve) => setTimeout(resolve, 20));
  let given = 0;
  for (let turn = 0; turn < 10; turn++) {
    const batch = freeSegments(64, 64);
    port.receive(batch);
    given += batch.packets;
    if (batch.packets === 0) break;
  }
  assert.ok(given >= 256, `${given} of a burst of 256`);
});

test("sink discards packets, and null drops them, when they are sent", () => {
  const batch = new Batch(4, 4);
  const memory = mapAnonymous(64);
  batch.push(memory.address, 60, 1);
  const sink = new SinkPort();
  assert.equal(sink.send(batch), 1);
  assert.deepEqual([sink.sent, sink.dropped, sink.linkUp], [1, 0, true]);
  const unplugged = new NullPort();
  assert.equal(unplugged.send(batch), 1);
  assert.deepEqual([unplugged.dropped, unplugged.linkUp], [1, false]);
});

test("a capture is replayed byte for byte and in order when pcap wrote it", () => {
  const folder = mkdtempSync(join(tmpdir(), "bpfhv-pcap-"));
  const file = join(folder, "a.pcap");
  const out = new PcapPort({ write: file });
  const memory = mapAnonymous(4096);
  const bytes = new Uint8Array(memory.view(0, 4096)).map((_, i) => i);
  new Uint8Array(memory.view(0, 4096)).set(bytes);
  const batch = new Batch(4, 8);
  batch.push(memory.address, 60, 1);
  batch.addSegment(memory.address + 100, 14);
  batch.addSegment(memory.address + 1000, 700);
  batch.endPacket(714, 3);
  assert.equal(out.send(batch), 2);
  out.close();
  // Header, two records: the classic format with nanoseconds, Ethernet.
  const written = readFileSync(file);
  assert.equal(written.length, 24 + 16 + 60 + 16 + 714);
  assert.equal(written.readUInt32LE(0), 0xa1b23c4d);
  assert.equal(written.readUInt32LE(20), 1);
  const back = new PcapPort({ replay: file });
  const free = freeSegments(8, 512, 1518, 1518);
  back.receive(free);
  assert.equal(free.packets, 2);
  assert.deepEqual(packetBytes(free, 0), bytes.slice(0, 60));
  assert.deepEqual(
    packetBytes(free, 1),
    Uint8Array.from([...bytes.slice(100, 114), ...bytes.slice(1000, 1700)]),
  );
  writeFileSync(file, "not a capture, but long enough to look like one");
  assert.throws(() => new PcapPort({ replay: file }), { code: "PCAP", message: /editcap/ });
  rmSync(folder, { recursive: true });
});

test("pcap is refused when there are several queue pairs", () => {
  assert.throws(() => openPorts({ kind: "pcap", write: "x" }, 2, false), { code: "PORT" });
});

/** Captured offloads: checksums that are right, and segments as the kernel makes them. */
import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import fc from "fast-check";
import { batchOf, recordsOf, skipTap, TapPair } from "../../test/support/net.ts";
import {
  GSO_ECN,
  GSO_TCP_V4,
  GSO_TCP_V6,
  GSO_UDP,
  GSO_UDP_L4,
  NEEDS_CSUM,
} from "../memory/index.ts";
import { openTap } from "../os/tap.ts";
import { PcapPort } from "./pcap.ts";
import type { Port } from "./port.ts";
import { TapPort } from "./tap.ts";

const folder = mkdtempSync(join(tmpdir(), "bpfhv-cut-"));
after(() => rmSync(folder, { recursive: true }));

interface Shape {
  readonly v6: boolean;
  readonly udp: boolean;
  /** VLANs, outermost first. */
  readonly tags: readonly number[];
  /** Bytes of options, multiples of 4. */
  readonly ipOptions: number;
  readonly tcpOptions: number;
  readonly flags: number;
  readonly payload: number;
}

interface Packet {
  readonly frame: Uint8Array;
  readonly network: number;
  readonly transport: number;
  readonly header: number;
}

/** Sum of 16-bit words, folded: what a checksum is the complement of. */
function folded(bytes: Uint8Array): number {
  let total = 0;
  for (const [i, byte] of bytes.entries()) total += i % 2 === 0 ? byte * 256 : byte;
  while (total > 0xffff) total = (total & 0xffff) + (total >>> 16);
  return total;
}

/** Addresses, protocol and length (RFC 768, RFC 9293, RFC 8200). */
function pseudo(frame: Uint8Array, network: number, v6: boolean, udp: boolean, length: number) {
  const from = network + (v6 ? 8 : 12);
  const addresses = frame.subarray(from, from + (v6 ? 32 : 8));
  return Uint8Array.of(...addresses, 0, udp ? 17 : 6, length >>> 8, length & 0xff);
}

/** As a guest's stack hands it over: its checksum field holds the pseudo header's sum. */
function packetOf(shape: Shape): Packet {
  const { v6, udp, tags, payload } = shape;
  const network = 14 + 4 * tags.length;
  const transport = network + (v6 ? 40 : 20 + shape.ipOptions);
  const header = transport + (udp ? 8 : 20 + shape.tcpOptions);
  const frame = Uint8Array.from({ length: header + payload }, (_, i) => i * 13);
  const view = new DataView(frame.buffer);
  frame.set([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x52, 0x54, 0, 0xaa, 0xbb, 0xcc]);
  for (const [i, vlan] of tags.entries()) {
    view.setUint16(12 + 4 * i, i + 1 < tags.length ? 0x88a8 : 0x8100);
    view.setUint16(14 + 4 * i, vlan);
  }
  view.setUint16(network - 2, v6 ? 0x86dd : 0x0800);
  const length = frame.length - transport;
  if (v6) {
    view.setUint32(network, 0x6000_0000);
    view.setUint16(network + 4, length);
    view.setUint16(network + 6, ((udp ? 17 : 6) << 8) | 64);
  } else {
    view.setUint16(network, 0x4500 + 0x40 * shape.ipOptions);
    view.setUint16(network + 2, frame.length - network);
    view.setUint32(network + 4, 0x1234_4000);
    view.setUint16(network + 8, (64 << 8) | (udp ? 17 : 6));
    // Options that do nothing.
    frame.fill(1, network + 20, transport);
    view.setUint16(network + 10, 0);
    view.setUint16(network + 10, ~folded(frame.subarray(network, transport)));
  }
  if (udp) view.setUint16(transport + 4, length);
  else {
    view.setUint16(transport + 12, ((5 + shape.tcpOptions / 4) << 12) | shape.flags);
    frame.fill(1, transport + 20, header);
  }
  view.setUint16(transport + (udp ? 6 : 16), folded(pseudo(frame, network, v6, udp, length)));
  return { frame, network, transport, header };
}

function send(port: Port, shape: Shape, packet: Packet, gsoType: number, gsoSize: number): void {
  const { batch, memory } = batchOf([packet.frame], true);
  batch.flags[0] = NEEDS_CSUM;
  batch.gsoType[0] = gsoType;
  batch.gsoSize[0] = gsoSize;
  batch.hdrLen[0] = gsoType === 0 ? 0 : packet.header;
  batch.csumStart[0] = packet.transport;
  batch.csumOffset[0] = shape.udp ? 6 : 16;
  assert.equal(port.send(batch), 1);
  memory.unmap();
}

function captured(shape: Shape, packet: Packet, gsoType: number, gsoSize: number): Buffer[] {
  const write = join(folder, "a.pcap");
  const port = new PcapPort({ write });
  send(port, shape, packet, gsoType, gsoSize);
  port.close();
  assert.equal(port.dropped, 0);
  return recordsOf(readFileSync(write));
}

/** Both checksums of a packet are right. */
function expectGood(record: Uint8Array, { v6, udp }: Shape, { network, transport }: Packet): void {
  if (!v6) assert.equal(folded(record.subarray(network, transport)), 0xffff, "IPv4");
  const own = record.subarray(transport);
  const all = Uint8Array.of(...pseudo(record, network, v6, udp, own.length), ...own);
  assert.equal(folded(all), 0xffff, "TCP or UDP");
}

const gsoTypeOf = ({ v6, udp, flags }: Shape): number => {
  if (udp) return GSO_UDP_L4;
  return (v6 ? GSO_TCP_V6 : GSO_TCP_V4) | (flags & 0x80 ? GSO_ECN : 0);
};

const shapes = fc.record({
  v6: fc.boolean(),
  udp: fc.boolean(),
  tags: fc.constantFrom([], [5], [5, 6]),
  ipOptions: fc.constantFrom(0, 4, 40),
  tcpOptions: fc.constantFrom(0, 12, 40),
  // ACK, with and without CWR, PSH, FIN.
  flags: fc.constantFrom(0x10, 0x90, 0x18, 0x99),
  payload: fc.integer({ min: 1, max: 20_000 }),
});

test("a capture has correct segments, each with its checksums, when a packet is large", () => {
  fc.assert(
    fc.property(shapes, fc.integer({ min: 100, max: 9000 }), (shape, size) => {
      const packet = packetOf(shape);
      const records = captured(shape, packet, gsoTypeOf(shape), size);
      assert.equal(records.length, Math.ceil(shape.payload / size));
      const { frame, header, network, transport } = packet;
      assert.deepEqual(
        Buffer.concat(records.map((record) => record.subarray(header))),
        Buffer.from(frame.subarray(header)),
      );
      for (const [i, record] of records.entries()) {
        const last = i === records.length - 1;
        assert.equal(record.length - header, last ? shape.payload - i * size : size);
        expectGood(record, shape, packet);
        const length = record.readUInt16BE(network + (shape.v6 ? 4 : 2));
        assert.equal(length, record.length - network - (shape.v6 ? 40 : 0));
        if (shape.udp) assert.equal(record.readUInt16BE(transport + 4), record.length - transport);
        else {
          const first = Buffer.from(frame).readUInt32BE(transport + 4);
          assert.equal(record.readUInt32BE(transport + 4), (first + i * size) % 2 ** 32);
          const flags = shape.flags & ~(i > 0 ? 0x80 : 0) & ~(last ? 0 : 0x09);
          assert.equal(record[transport + 13], flags);
        }
      }
    }),
    { numRuns: 200, seed: 18 },
  );
});

test("a capture has the checksum when a packet needs no segmentation", () => {
  fc.assert(
    fc.property(shapes, (shape) => {
      const packet = packetOf({ ...shape, payload: shape.payload % 1400 });
      const [record] = captured(shape, packet, 0, 0);
      expectGood(record, shape, packet);
      const field = packet.transport + (shape.udp ? 6 : 16);
      record.set(packet.frame.subarray(field, field + 2), field);
      assert.equal(Buffer.compare(record, packet.frame), 0, "and changes nothing else");
    }),
    { numRuns: 100, seed: 18 },
  );
});

test("a capture keeps a large packet whole when its metadata is wrong", () => {
  const shape = {
    ...{ v6: false, udp: false, tags: [], ipOptions: 0, tcpOptions: 0, flags: 0x10 },
    payload: 3000,
  };
  const good = packetOf(shape);
  const changed = (at: number, byte: number): Packet => {
    const frame = good.frame.slice();
    frame[at] = byte;
    return { ...good, frame };
  };
  const cases: readonly [string, Packet, number][] = [
    ["IP fragments", good, GSO_UDP],
    ["another IP version", good, GSO_TCP_V6],
    ["another type", changed(12, 0x12), GSO_TCP_V4],
    ["an IPv4 header that reaches into TCP's", changed(14, 0x4f), GSO_TCP_V4],
    ["an IPv4 header that is too short", changed(14, 0x44), GSO_TCP_V4],
    ["a TCP header that is too short", changed(14 + 20 + 12, 0x40), GSO_TCP_V4],
    ["headers of more than 512 bytes", { ...good, transport: 600 }, GSO_TCP_V4],
    ["a transport behind the end", { ...good, transport: good.frame.length - 18 }, GSO_TCP_V4],
  ];
  for (const [what, packet, gsoType] of cases) {
    const records = captured(shape, packet, gsoType, 1000);
    assert.deepEqual(
      records.map(({ length }) => length),
      [good.frame.length],
      what,
    );
  }
});

test("a capture stays readable when a guest's metadata is random", () => {
  const byte = fc.integer({ min: 0, max: 255 });
  const metadata = fc.record({
    gsoType: fc.constantFrom(1, 4, 5, 0x81),
    gsoSize: fc.integer({ min: 1, max: 3000 }),
    csumStart: fc.integer({ min: 14, max: 120 }),
    csumOffset: fc.integer({ min: 0, max: 70_000 }),
  });
  const bytes = fc.array(fc.tuple(fc.integer({ min: 12, max: 90 }), byte), { maxLength: 4 });
  const write = join(folder, "hostile.pcap");
  const port = new PcapPort({ write });
  let sent = 0;
  fc.assert(
    fc.property(shapes, metadata, bytes, (shape, said, changes) => {
      const { frame } = packetOf({ ...shape, payload: shape.payload % 3000 });
      for (const [at, value] of changes) if (at < frame.length) frame[at] = value;
      const { batch, memory } = batchOf([frame], true);
      batch.flags[0] = NEEDS_CSUM;
      batch.gsoType[0] = said.gsoType;
      batch.gsoSize[0] = said.gsoSize;
      batch.csumStart[0] = said.csumStart;
      batch.csumOffset[0] = said.csumOffset;
      sent += port.send(batch);
      memory.unmap();
    }),
    { numRuns: 1000, seed: 18 },
  );
  port.close();
  assert.equal(port.dropped, 0);
  assert.ok(recordsOf(readFileSync(write)).length >= sent);
});

test("a capture has the kernel's segments when a packet is large", {
  skip: skipTap(),
}, async () => {
  const pair = new TapPair();
  const tap = new TapPort(openTap({ name: "nic", vnetHeader: 12, offloads: 0, netns: pair.netns }));
  try {
    pair.waitForBridge(tap.fd);
    const base = { tags: [], ipOptions: 0, tcpOptions: 12, flags: 0x99, payload: 5000 };
    for (const v6 of [false, true]) {
      for (const udp of [false, true]) {
        for (const tags of [[], [5]]) {
          const shape: Shape = { ...base, v6, udp, tags };
          const packet = packetOf(shape);
          const wanted = captured(shape, packet, gsoTypeOf(shape), 1400);
          const mine = (frame: Uint8Array) => frame[5] === 0xff && frame[11] === 0xcc;
          send(tap, shape, packet, gsoTypeOf(shape), 1400);
          assert.equal(tap.dropped, 0);
          const got: Uint8Array[] = [];
          for (let n = 0; got.length < wanted.length && n < 1000; n++) {
            got.push(...pair.take(mine));
            await sleep(2);
          }
          assert.deepEqual(
            got.map((frame) => Buffer.from(frame).toString("hex")),
            wanted.map((frame) => frame.toString("hex")),
            JSON.stringify(shape),
          );
        }
      }
    }
  } finally {
    tap.close();
    pair.close();
  }
});

/**
 * The host half of sring_gso against images of contexts written by hand: offsets and values are
 * literal, from the format's description, and nothing here imports the layout.
 *
 *     private area at 2096: prod +0, intr +4, cons +128, kick_enabled +132, qmask +256, clear +384
 *     descriptors at 2608, 32 bytes each: cookie u64, paddr u64, len u16, flags u16, csum_start
 *     u16, csum_offset u16, TX: hdr_len u16, gso_size u16; RX: gso_size u16, hdr_len u16;
 *     gso_type u16, 0
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { Interpreter } from "../../ebpf/interpreter.ts";
import { LocalMemory } from "../../guest/memory.ts";
import {
  DROP_BAD_ADDRESS,
  DROP_BAD_CHAIN,
  DROP_BAD_CHECKSUM,
  DROP_BAD_LENGTH,
  DROP_BAD_SEGMENTATION,
  newQueueCounters,
} from "../../memory/counters.ts";
import { Batch } from "../../memory/index.ts";
import { programsOf } from "../program-set.ts";
import { sringGso } from "./host.ts";

const DESC = 2608;
const ALL = 0x1ff;

function queue(bufs = 16, features = ALL, maxPacket = 65557) {
  const memory = new LocalMemory(1 << 20);
  const context = new ArrayBuffer(DESC + 32 * bufs);
  const counters = newQueueCounters();
  const config = { memory, context, counters, bufs, features, maxPacket };
  const view = new DataView(context);
  const publish = (prod: number) => view.setUint32(2096, prod, true);
  return { memory, context, counters, config, view, publish };
}

/** Writes descriptor `index`: 16 bytes of cookie and address, then the rest in hex. */
function put(context: ArrayBuffer, index: number, address: number, rest: string): void {
  const view = new DataView(context, DESC + 32 * index, 32);
  view.setUint32(0, 0xc0 + index, true);
  view.setUint32(8, address, true);
  new Uint8Array(context).set(Buffer.from(rest.replaceAll(" ", ""), "hex"), DESC + 32 * index + 16);
}

/** Guest memory starts at 0x100000. */
const RAM = 0x100000;
const PLAIN = "3c00 0100 0000 0000 0000 0000 0000 0000";
/** 1000 bytes, end, checksum at 34 + 16, headers 54, segments of 500, TCP over IPv4. */
const TSO = "e803 0300 2200 1000 3600 f401 0100 0000";

test("context sizes and features are those of the format", () => {
  assert.equal(sringGso.contextSize(256), 10800);
  assert.equal(sringGso.contextSize(16), DESC + 512);
  assert.equal(sringGso.features, 0x1ff);
});

test("TX makes one packet of the buffers up to the end, with the metadata of the last", () => {
  const { memory, context, config, publish, view } = queue();
  put(context, 0, RAM, "3600 0000 ffff ffff ffff ffff ffff ffff");
  put(context, 1, RAM + 4096, TSO);
  put(context, 2, RAM + 8192, PLAIN);
  publish(3);
  const tx = sringGso.tx(config);
  const batch = new Batch(8, 64);
  assert.equal(tx.gather(batch), 2);
  assert.deepEqual([...batch.first.subarray(0, 3)], [0, 2, 3]);
  assert.deepEqual([...batch.size.subarray(0, 3)], [54, 1000, 60]);
  assert.equal(batch.address[1], memory.translate(RAM + 4096, 1000, false));
  assert.deepEqual([...batch.length.subarray(0, 2)], [1054, 60]);
  const metadata = [batch.flags, batch.gsoType, batch.hdrLen, batch.gsoSize];
  assert.deepEqual(
    [...metadata, batch.csumStart, batch.csumOffset].map((array) => array[0]),
    [1, 1, 54, 500, 34, 16],
  );
  assert.equal(batch.flags[1], 0);
  tx.consume(batch, 1);
  assert.equal(view.getUint32(2096 + 128, true), 2, "both buffers of the packet");
  memory.close();
});

test("RX packet uses the buffers that it fills, and the last has end and metadata, two fields swapped", () => {
  const { memory, context, config, publish, view } = queue(16, ALL, 1518);
  for (let i = 0; i < 8; i++)
    put(context, i, RAM + i * 4096, "0004 ffff ffff ffff ffff ffff ffff ffff");
  publish(8);
  view.setUint32(2100, 1, true);
  const rx = sringGso.rx(config);
  const batch = new Batch(8, 64);
  assert.equal(rx.offer(batch, 8), 8);
  const p = batch.endReceived(1500);
  batch.flags[p] = 1;
  batch.gsoType[p] = 4;
  batch.hdrLen[p] = 74;
  batch.gsoSize[p] = 1000;
  batch.csumStart[p] = 54;
  batch.csumOffset[p] = 16;
  batch.endReceived(60);
  assert.equal(rx.deliver(batch), true);
  const rest = (i: number) => Buffer.from(context, DESC + 32 * i + 16, 16).toString("hex");
  assert.match(rest(0), /^00040000/);
  assert.equal(rest(1), "dc01" + "0300" + "3600" + "1000" + "e803" + "4a00" + "0400" + "0000");
  assert.equal(rest(2), `3c000100${"0000".repeat(6)}`);
  assert.match(rest(3), /^0004ffff/, "not touched");
  assert.equal(view.getUint32(2096 + 128, true), 3);
  memory.close();
});

for (const [why, counter, features, rest] of [
  ["checksum past the end", DROP_BAD_CHECKSUM, ALL, "3c00 0300 3500 0600 0000 0000 0000 0000"],
  ["sum of start and offset", DROP_BAD_CHECKSUM, ALL, "3c00 0300 2200 feff 0000 0000 0000 0000"],
  ["checksum not negotiated", DROP_BAD_CHECKSUM, 1, "3c00 0300 2200 1000 0000 0000 0000 0000"],
  ["segmentation not negotiated", DROP_BAD_SEGMENTATION, 7, TSO],
  ["segmentation without checksum", DROP_BAD_SEGMENTATION, ALL, TSO.replace("0300", "0100")],
  ["an unknown type", DROP_BAD_SEGMENTATION, ALL, TSO.replace("0100 0000", "0200 0000")],
  ["a type of 16 bits", DROP_BAD_SEGMENTATION, ALL, TSO.replace("0100 0000", "0101 0000")],
  ["segments of nothing", DROP_BAD_SEGMENTATION, ALL, TSO.replace("f401", "0000")],
  ["the kernel's own mark", DROP_BAD_SEGMENTATION, ALL, TSO.replace("f401", "ffff")],
  ["headers past the end", DROP_BAD_SEGMENTATION, ALL, TSO.replace("3600", "e903")],
  ["shorter than a header", DROP_BAD_LENGTH, ALL, "0d00 0100 0000 0000 0000 0000 0000 0000"],
] as const) {
  test(`a bad packet is dropped, once, and counted by its reason: ${why}`, () => {
    const { memory, context, config, publish, counters, view } = queue(16, features);
    put(context, 0, RAM, PLAIN);
    put(context, 1, RAM, rest);
    put(context, 2, RAM, PLAIN);
    publish(3);
    const tx = sringGso.tx(config);
    const batch = new Batch(8, 64);
    assert.equal(tx.gather(batch), 1, "the one before it");
    tx.consume(batch, 1);
    batch.clear();
    assert.equal(tx.gather(batch), 1, "the one after it");
    tx.consume(batch, 1);
    assert.equal(counters[counter], 1);
    assert.equal(view.getUint32(2096 + 128, true), 3);
    memory.close();
  });
}

test("packet with a buffer outside guest memory is dropped whole", () => {
  const { memory, context, config, publish, counters } = queue();
  put(context, 0, RAM, "3c00 0000");
  put(context, 1, RAM - 4096, "3c00 0000");
  put(context, 2, RAM, PLAIN);
  publish(3);
  const tx = sringGso.tx(config);
  const batch = new Batch(8, 64);
  assert.equal(tx.gather(batch), 0);
  assert.equal(counters[DROP_BAD_ADDRESS], 1);
  assert.equal(batch.segments, 0);
  memory.close();
});

test("a packet without an end: at most 64 buffers, or the whole ring, are dropped", () => {
  for (const bufs of [16, 256]) {
    const { memory, context, config, publish, counters } = queue(bufs);
    for (let i = 0; i < bufs; i++) put(context, i, RAM, "3c00 0000");
    publish(bufs);
    const tx = sringGso.tx(config);
    const batch = new Batch(8, 256);
    assert.equal(tx.gather(batch), 0);
    assert.equal(counters[DROP_BAD_CHAIN], bufs === 16 ? 1 : 4);
    memory.close();
  }
});

test("packet without its end waits for the rest and does not keep the host awake", () => {
  const { memory, context, config, publish } = queue();
  put(context, 0, RAM, "3c00 0000");
  put(context, 1, RAM, PLAIN);
  publish(1);
  const tx = sringGso.tx(config);
  const batch = new Batch(8, 64);
  assert.equal(tx.gather(batch), 0);
  assert.equal(tx.consume(batch, 0), false);
  assert.equal(tx.enableKicks(), false);
  publish(2);
  assert.equal(tx.enableKicks(), true);
  assert.equal(tx.gather(batch), 1);
  assert.equal(batch.length[0], 120);
  memory.close();
});

test("RX counts an invalid buffer of a packet by its fault", () => {
  const { memory, context, config, publish, counters } = queue(16, ALL, 1522);
  put(context, 0, RAM, "0004 0000");
  put(context, 1, RAM, "0000 0000");
  put(context, 2, RAM - 8192, "0004 0000");
  for (let i = 3; i < 16; i++) put(context, i, RAM + i * 4096, "0004 0000");
  publish(16);
  const rx = sringGso.rx(config);
  const batch = new Batch(8, 64);
  rx.offer(batch, 8);
  batch.endReceived(1500);
  rx.deliver(batch);
  assert.deepEqual([counters[DROP_BAD_LENGTH], counters[DROP_BAD_ADDRESS]], [1, 1]);
  memory.close();
});

test("RX waits for room for the longest packet, or for half of a small ring", () => {
  const { memory, context, config, publish, counters } = queue(16);
  for (let i = 0; i < 16; i++) put(context, i, RAM + i * 4096, "000e 0000");
  const rx = sringGso.rx(config);
  const batch = new Batch(8, 64);
  publish(7);
  assert.equal(rx.offer(batch, 64), 0);
  assert.equal(rx.enableKicks(), false, "seven are not enough, and known");
  publish(8);
  assert.equal(rx.enableKicks(), true);
  assert.equal(rx.offer(batch, 64), 8);
  assert.equal(batch.nextBuffer(), 8 * 3584);
  batch.endReceived(60);
  assert.equal(batch.nextBuffer(), 0, "one packet at a time then");
  assert.equal(counters[DROP_BAD_LENGTH], 0);
  memory.close();
});

test("buffer whose length exceeds 16 bits is refused, and nothing is published", () => {
  for (const form of ["helperfree", "v1"] as const) {
    for (const [id, name] of [
      [1, "rxp"],
      [6, "txp"],
    ] as const) {
      const context = new ArrayBuffer(DESC + 512);
      const view = new DataView(context);
      view.setUint32(16, 2, true);
      view.setUint32(48 + 24, 100, true);
      view.setUint32(80 + 24, 65536, true);
      const code = programsOf(sringGso, { bufs: 16, form }).code.get(id) as Uint8Array;
      const region = { name: "context", base: 0x20_0000, bytes: new Uint8Array(context) };
      const helpers = new Map([0x4b8f0003, 0x4b8f0009].map((n) => [n, () => 0n] as const));
      const machine = new Interpreter(code, { regions: [region], helpers });
      assert.equal(machine.call(0x20_0000), -1, `${name} ${form}`);
      assert.equal(view.getUint32(2096, true), 0);
    }
  }
});

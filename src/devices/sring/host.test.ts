/**
 * The host half of sring against images of contexts written by hand: offsets and values are
 * literal, from the format's description, and nothing here imports the layout.
 *
 *     private area at 2096: prod +0, intr +4, cons +128, kick_enabled +132, qmask +256, clear +384
 *     descriptors at 2608, 24 bytes each: cookie u64, paddr u64, len u32, pad u32
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { LocalMemory } from "../../guest/memory.ts";
import { DROP_BAD_ADDRESS, newQueueCounters } from "../../memory/counters.ts";
import { Batch } from "../../memory/index.ts";
import { sring } from "./host.ts";

const SIZE = 2608 + 24 * 16;

/** Hex bytes by offset, over zeros. */
function image(parts: Readonly<Record<number, string>>): Uint8Array {
  const bytes = new Uint8Array(SIZE);
  for (const [offset, hex] of Object.entries(parts)) {
    bytes.set(Buffer.from(hex.replaceAll(" ", ""), "hex"), Number(offset));
  }
  return bytes;
}

function expectImage(context: ArrayBuffer, wanted: Uint8Array): void {
  const got = new Uint8Array(context);
  const at = [...wanted.keys()].filter((i) => got[i] !== wanted[i]);
  assert.deepEqual(
    at.map((i) => `${i}: ${got[i]}, wanted ${wanted[i]}`),
    [],
  );
}

function queue(parts: Readonly<Record<number, string>>) {
  const memory = new LocalMemory(1 << 20);
  const context = image(parts).buffer as ArrayBuffer;
  const counters = newQueueCounters();
  return {
    memory,
    context,
    counters,
    config: { memory, context, counters, bufs: 16, features: 0, maxPacket: 1518 },
  };
}

/** Guest memory starts at 0x100000. */
const SLOT = (address: string, length: string) =>
  `efbeadde 00000000 ${address} 00000000 ${length} 00000000`;

test("initialise sets qmask 15, kicks enabled, RX interrupts enabled, TX intr_at 0", () => {
  assert.equal(sring.contextSize(16), SIZE);
  assert.equal(sring.contextSize(256), 8752);
  for (const [direction, intr] of [
    ["rx", "01000000"],
    ["tx", "00000000"],
  ] as const) {
    // The context had other content; the host does not write the public part.
    const context = new Uint8Array(SIZE).fill(0xaa).buffer;
    sring.initialise(direction, context, 16);
    const wanted = image({ 2100: intr, 2228: "01000000", 2352: "0f000000" });
    wanted.fill(0xaa, 0, 2096);
    expectImage(context, wanted);
  }
});

test("TX gathers two packets in order, and completing them changes only cons", () => {
  const parts = {
    2096: "02000000",
    2100: "01000000",
    2352: "0f000000",
    2608: SLOT("00001000", "3c000000"),
    2632: SLOT("00081000", "ee050000"),
  };
  const { memory, context, config } = queue(parts);
  const tx = sring.tx(config);
  const batch = new Batch(8);
  assert.equal(tx.gather(batch), 2);
  assert.deepEqual([...batch.length.subarray(0, 2)], [60, 1518]);
  assert.equal(batch.address[0], memory.translate(0x100000, 60, false));
  assert.equal(batch.address[1], memory.translate(0x100800, 1518, false));
  assert.equal(tx.consume(batch, 2), true, "slot 1 was to interrupt");
  expectImage(context, image({ ...parts, 2224: "02000000" }));
  memory.close();
});

test("TX completes the part of a batch that was sent, and interrupts only past intr_at", () => {
  const parts = {
    2096: "03000000",
    2100: "02000000",
    2608: SLOT("00001000", "3c000000"),
    2632: SLOT("00081000", "3c000000"),
    2656: SLOT("00101000", "3c000000"),
  };
  const { memory, context, config } = queue(parts);
  const tx = sring.tx(config);
  const batch = new Batch(8);
  tx.gather(batch);
  assert.equal(tx.consume(batch, 1), false);
  expectImage(context, image({ ...parts, 2224: "01000000" }));
  batch.clear();
  assert.equal(tx.gather(batch), 2, "the rest is gathered again");
  assert.equal(tx.consume(batch, 2), true);
  expectImage(context, image({ ...parts, 2224: "03000000" }));
  memory.close();
});

test("TX indices wrap at 2^32 and slots at 16", () => {
  const parts = {
    2096: "01000000",
    2100: "ffffffff",
    2224: "ffffffff",
    2968: SLOT("00001000", "3c000000"),
    2608: SLOT("00081000", "40000000"),
  };
  const { memory, context, config } = queue(parts);
  const tx = sring.tx(config);
  tx.resync();
  const batch = new Batch(8);
  assert.equal(tx.gather(batch), 2);
  assert.deepEqual([...batch.length.subarray(0, 2)], [60, 64]);
  assert.equal(tx.consume(batch, 2), true);
  expectImage(context, image({ ...parts, 2224: "01000000" }));
  memory.close();
});

test("RX writes received lengths into the slots, then moves cons", () => {
  const parts = {
    2096: "03000000",
    2100: "01000000",
    2608: SLOT("00001000", "00080000"),
    2632: SLOT("00081000", "00080000"),
    2656: SLOT("00101000", "00080000"),
  };
  const { memory, context, config } = queue(parts);
  const rx = sring.rx(config);
  const batch = new Batch(8);
  assert.equal(rx.offer(batch, 8), 3);
  batch.endReceived(60);
  batch.endReceived(1514);
  assert.equal(rx.deliver(batch), true);
  expectImage(context, image({ ...parts, 2224: "02000000", 2624: "3c000000", 2648: "ea050000" }));
  memory.close();
});

test("RX does not interrupt when interrupts are off or nothing is complete", () => {
  const parts = { 2096: "01000000", 2608: SLOT("00001000", "00080000") };
  const { memory, context, config } = queue(parts);
  const rx = sring.rx(config);
  const batch = new Batch(8);
  rx.offer(batch, 8);
  assert.equal(rx.deliver(batch), false);
  expectImage(context, image(parts));
  batch.endReceived(60);
  assert.equal(rx.deliver(batch), false);
  expectImage(context, image({ ...parts, 2224: "01000000", 2624: "3c000000" }));
  memory.close();
});

test("RX completes a buffer outside guest memory with length 0, even when it is the only one", () => {
  const parts = { 2096: "01000000", 2608: SLOT("00000f00", "00080000") };
  const { memory, context, counters, config } = queue(parts);
  const rx = sring.rx(config);
  const batch = new Batch(8);
  assert.equal(rx.offer(batch, 8), 0);
  rx.deliver(batch);
  expectImage(context, image({ ...parts, 2224: "01000000", 2624: "00000000" }));
  assert.equal(counters[DROP_BAD_ADDRESS], 1);
  memory.close();
});

test("enableKicks and disableKicks write word 2228, and the second check sees work", () => {
  const { memory, context, config } = queue({ 2096: "00000000" });
  const tx = sring.tx(config);
  assert.equal(tx.enableKicks(), false);
  expectImage(context, image({ 2228: "01000000" }));
  new DataView(context).setUint32(2096, 1, true);
  assert.equal(tx.enableKicks(), true);
  expectImage(context, image({ 2096: "01000000", 2228: "00000000" }));
  memory.close();
});

test("TX interrupt is overdue while slot intr_at is complete and not reclaimed", () => {
  const cases: [intrAt: number, clear: number, overdue: boolean][] = [
    [1, 0, true],
    [1, 1, true],
    [1, 2, false],
    [2, 0, false],
    [0xffffffff, 0, false],
  ];
  for (const [intrAt, clear, overdue] of cases) {
    const { memory, context, config } = queue({ 2096: "03000000", 2224: "02000000" });
    new DataView(context).setUint32(2100, intrAt, true);
    new DataView(context).setUint32(2480, clear, true);
    const tx = sring.tx(config);
    tx.resync();
    assert.equal(tx.interruptOverdue(), overdue, `intr_at ${intrAt}, clear ${clear}`);
    memory.close();
  }
});

test("queue stops when more is published than it has slots", () => {
  for (const prod of ["11000000", "ffffffff", "00000080"]) {
    const { memory, context, config } = queue({ 2096: prod, 2608: SLOT("00001000", "3c000000") });
    const tx = sring.tx(config);
    const batch = new Batch(8);
    assert.equal(tx.gather(batch), 0, prod);
    assert.equal(tx.broken, true, prod);
    new DataView(context).setUint32(2096, 1, true);
    assert.equal(tx.gather(batch), 0, "it stays stopped");
    memory.close();
  }
});

/** To a set with fewer offloads while large packets wait for the guest: none is lost. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { TestPort } from "../../test/support/guest.ts";
import type { RingFormat } from "../devices/format.ts";
import { sring } from "../devices/sring/host.ts";
import { sringGso } from "../devices/sring_gso/host.ts";
import { vringPacked } from "../devices/vring_packed/host.ts";
import { GuestDriver } from "../guest/driver.ts";
import { LocalMemory } from "../guest/memory.ts";
import { DROP_COUNTERS, DROP_TOO_LONG, QUEUE_COUNTERS, SOFTWARE } from "../memory/counters.ts";
import { GSO_NONE, GSO_TCP_V4, NEEDS_CSUM } from "../memory/index.ts";
import { LocalNic } from "./local.ts";

const HEADERS = 14 + 20 + 20;
const TRANSPORT = 34;
const MSS = 1448;

function folded(bytes: Uint8Array): number {
  let total = 0;
  for (const [i, byte] of bytes.entries()) total += i % 2 === 0 ? byte * 256 : byte;
  while (total > 0xffff) total = (total & 0xffff) + (total >>> 16);
  return total;
}

/** Addresses, protocol, length. */
function pseudoSum(frame: Uint8Array): number {
  const length = frame.length - TRANSPORT;
  return folded(Uint8Array.of(...frame.subarray(26, 34), 0, 6, length >>> 8, length & 0xff));
}

/** A TCP segment whose payload is numbers that go on from `sequence`. */
function large(sequence: number, payload: number): Uint8Array {
  const frame = new Uint8Array(HEADERS + payload);
  const view = new DataView(frame.buffer);
  view.setUint16(12, 0x0800);
  frame.set([0x45, 0, 0, 0, 0, 1, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2], 14);
  view.setUint16(16, frame.length - 14);
  view.setUint32(38, sequence);
  frame[46] = 0x50;
  for (let at = 0; at < payload; at++) frame[HEADERS + at] = byteAt(sequence + at);
  view.setUint16(TRANSPORT + 16, pseudoSum(frame));
  return frame;
}

const byteAt = (position: number): number => (position * 31 + (position >>> 8)) & 0xff;

class Rig {
  readonly memory = new LocalMemory(64 << 20);
  readonly port = new TestPort();
  readonly local: LocalNic;
  readonly driver: GuestDriver;
  /** Bytes of the stream that the guest has, without a gap. */
  position = 0;
  readonly lengths: number[] = [];
  checksumsLeft = 0;

  constructor(device: RingFormat) {
    const config = { rxBufs: 64, txBufs: 16 };
    this.local = new LocalNic({ device, memory: this.memory, ports: [this.port], config });
    const options = { overlap: true, features: 0xffff };
    this.driver = new GuestDriver(this.local, this.memory, options);
    this.driver.open();
    this.local.turn();
  }

  queue(count: number, payload: number): void {
    let sequence = this.#queued;
    for (let n = 0; n < count; n++) {
      const frame = large(sequence, payload);
      const gso = payload > MSS;
      this.port.incoming.push(frame);
      this.port.incomingMetadata.set(frame, {
        ...{ flags: NEEDS_CSUM, gsoType: gso ? GSO_TCP_V4 : GSO_NONE, hdrLen: gso ? HEADERS : 0 },
        ...{ gsoSize: gso ? MSS : 0, csumStart: TRANSPORT, csumOffset: 16 },
      });
      sequence += payload;
    }
    this.#queued = sequence;
  }

  #queued = 0;

  get queued(): number {
    return this.#queued;
  }

  take(most?: number): void {
    this.driver.receive(
      0,
      (frame, metadata) => {
        const view = new DataView(frame.buffer, frame.byteOffset, frame.length);
        assert.equal(view.getUint32(38), this.position, "the next bytes of the stream");
        for (let at = HEADERS; at < frame.length; at++) {
          assert.equal(frame[at], byteAt(this.position + at - HEADERS));
        }
        this.position += frame.length - HEADERS;
        this.lengths.push(frame.length);
        if ((metadata[0] & NEEDS_CSUM) !== 0) this.checksumsLeft++;
        else {
          const sum = pseudoSum(frame) + folded(frame.subarray(TRANSPORT));
          assert.equal((sum & 0xffff) + (sum >>> 16), 0xffff, "the checksum is right");
        }
      },
      most,
    );
  }

  upgrade(to: RingFormat, features: number, each: () => void, rxBufs = 64): void {
    this.local.replace(to, { rxBufs, txBufs: 16, features });
    for (let n = 0; this.driver.upgrade.step() || this.local.nic.upgrade.phase !== "idle"; n++) {
      assert.ok(n < 200, this.local.nic.upgrade.phase);
      this.local.turn();
      each();
    }
  }

  settle(): void {
    for (let idle = 0; idle < 3; idle++) {
      if (this.local.turn() > 0) idle = 0;
      this.take();
    }
  }

  close(): void {
    this.local.nic.detach();
    this.memory.close();
  }
}

for (const [from, to, features] of [
  [sringGso, sring, 0],
  [sringGso, sringGso, 0],
  [sringGso, vringPacked, 0],
] as const) {
  for (const payload of [20_000, 1000]) {
    const what = `${from.name} to ${to.name} without features, ${payload} bytes a packet`;
    test(`no packet is lost when the next set lacks what packets need: ${what}`, () => {
      const rig = new Rig(from);
      rig.queue(10, payload);
      rig.settle();
      assert.equal(rig.position, rig.queued, JSON.stringify(rig.local.pairs[0].rx.counters));
      assert.equal(rig.checksumsLeft, 10);
      // More than the guest has buffers for: it takes none until the set is replaced.
      rig.queue(200, payload);
      rig.local.turn();
      rig.upgrade(to, features, () => {
        if (rig.local.nic.upgrade.phase === "cutting") rig.take(4);
      });
      const { counters } = rig.local.pairs[0].rx;
      rig.settle();
      assert.equal(rig.position, rig.queued, "every byte arrived, once and in order");
      assert.ok(counters[SOFTWARE] > 10, `${counters[SOFTWARE]} fallbacks`);
      for (const name of DROP_COUNTERS) {
        assert.equal(counters[QUEUE_COUNTERS.findIndex(([each]) => each === name)], 0, name);
      }
      assert.ok((rig.lengths.at(-1) ?? 0) <= 1514);
      // From here on the port brings what the guest takes, and nothing else.
      const before = counters[SOFTWARE];
      rig.queue(1, payload);
      rig.settle();
      assert.deepEqual([counters[SOFTWARE], counters[DROP_TOO_LONG]], [before, 1]);
      rig.close();
    });
  }
}

const ALL = sringGso.features;
for (const [sets, what] of [
  [[0], "none again"],
  [[ALL], "all"],
  [[ALL, 0], "all, then none"],
] as const) {
  for (const payload of [60_000, 1000]) {
    for (const rxBufs of [16, 64]) {
      const how = `${what}, ${payload} bytes a packet, ${rxBufs} buffers`;
      test(`no packet is lost when sets with other features follow while older packets wait: ${how}`, () => {
        const rig = new Rig(sringGso);
        rig.queue(200, payload);
        rig.local.turn();
        for (const features of [0, ...sets]) {
          const device = features === 0 ? sring : sringGso;
          // Sixteen are fewer than the segments of 60,000 bytes, and than its buffers when whole.
          rig.upgrade(device, features, () => rig.take(1), features === 0 ? rxBufs : 64);
          rig.local.turn();
          assert.ok(rig.position < rig.queued, "packets wait for the next set, too");
        }
        rig.settle();
        const { counters } = rig.local.pairs[0].rx;
        for (const name of DROP_COUNTERS) {
          assert.equal(counters[QUEUE_COUNTERS.findIndex(([each]) => each === name)], 0, name);
        }
        assert.equal(rig.position, rig.queued, "every byte arrived, once and in order");
        rig.close();
      });
    }
  }
}

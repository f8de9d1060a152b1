/**
 * One suite for all devices, in both forms of programs, at several sizes: packets arrive in order,
 * unchanged, with their metadata, across wraps, full and empty rings, stops and restarts.
 */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import {
  Bench,
  FULL,
  frameOf,
  numberOf,
  SIZES,
  TestPort,
  VARIANTS,
} from "../../test/support/guest.ts";
import { FEATURES, type ProgramForm } from "../abi/index.ts";
import type { Device } from "../devices/format.ts";
import { DROP_PORT, NO_BUFFERS, PACKETS, RING_ERRORS } from "../memory/counters.ts";
import {
  allowsMetadata,
  GSO_NONE,
  GSO_TCP_V4,
  GSO_TCP_V6,
  GSO_UDP,
  GSO_UDP_L4,
  NEEDS_CSUM,
  type PacketMetadata,
} from "../memory/index.ts";
import { receiveOffloads, transmitOffloads } from "../memory/offloads.ts";
import { NullPort } from "../net/synthetic.ts";

const BUFFER = 512;

const NOTHING: PacketMetadata = {
  flags: 0,
  gsoType: GSO_NONE,
  hdrLen: 0,
  gsoSize: 0,
  csumStart: 0,
  csumOffset: 0,
};

/** Returns metadata as a guest's stack would request them, by number. */
function metadataFor(number: number, length: number, features: number): PacketMetadata {
  const allowed = transmitOffloads(features) & receiveOffloads(features);
  if (length < 60) return NOTHING;
  const types = [GSO_NONE, GSO_TCP_V4, GSO_TCP_V6, GSO_UDP, GSO_UDP_L4, GSO_TCP_V4 | 0x80];
  const gsoType = types[number % types.length];
  if (!allowsMetadata(allowed, NEEDS_CSUM, gsoType)) return NOTHING;
  const large = gsoType === GSO_NONE ? 0 : 1;
  return {
    flags: NEEDS_CSUM,
    gsoType,
    hdrLen: 54 * large,
    gsoSize: (100 + (number % 400)) * large,
    csumStart: 34,
    csumOffset: number % 2 === 0 ? 16 : 6,
  };
}

function headerOf(m: PacketMetadata): Uint8Array {
  const view = new DataView(new ArrayBuffer(10));
  view.setUint8(0, m.flags);
  view.setUint8(1, m.gsoType);
  view.setUint16(2, m.hdrLen, true);
  view.setUint16(4, m.gsoSize, true);
  view.setUint16(6, m.csumStart, true);
  view.setUint16(8, m.csumOffset, true);
  return new Uint8Array(view.buffer);
}

function expectMetadata(got: PacketMetadata, wanted: PacketMetadata, number: number): void {
  // Runs thousands of times: cheaper than a deep comparison.
  assert.equal(JSON.stringify(got), JSON.stringify(wanted), `packet ${number}`);
}

/** Returns a frame that fits one buffer if the device takes no more. */
function frame(number: number, device: Device): Uint8Array {
  return device.features & FEATURES.SG ? frameOf(number) : frameOf(number).slice(0, BUFFER);
}

interface Arrived {
  readonly frame: Uint8Array;
  readonly header: Uint8Array;
}

class Rings extends Bench {
  readonly features: number;
  readonly device: Device;

  constructor(device: Device, form: ProgramForm, bufs: number) {
    super({
      device,
      form,
      config: { rxBufs: bufs, txBufs: bufs },
      mib: 8 + Math.ceil((bufs * (2 * BUFFER + 200)) / 2 ** 20),
      guest: { bufferSize: BUFFER, features: device.features },
    });
    this.device = device;
    this.features = this.driver.features;
    this.driver.open();
  }

  out(number: number): boolean {
    const packet = frame(number, this.device);
    const metadata = metadataFor(number, packet.length, this.features);
    return this.driver.send(0, packet, headerOf(metadata));
  }

  in(number: number): void {
    const packet = frame(number, this.device);
    const [port] = this.ports;
    port.incoming.push(packet);
    port.incomingMetadata.set(packet, metadataFor(number, packet.length, this.features));
  }

  arrived(): Arrived[] {
    const all: Arrived[] = [];
    this.driver.receive(0, (bytes, header) => {
      all.push({ frame: bytes.slice(), header: header.slice() });
    });
    return all;
  }

  expectSent(numbers: readonly number[]): void {
    const { sent, sentMetadata } = this.ports[0];
    assert.deepEqual(sent.map(numberOf), numbers);
    for (const [i, number] of numbers.entries()) {
      assert.ok(Buffer.compare(sent[i], frame(number, this.device)) === 0, `packet ${number}`);
      const metadata = metadataFor(number, sent[i].length, this.features);
      expectMetadata(sentMetadata[i], metadata, number);
    }
  }

  expectArrived(all: readonly Arrived[], numbers: readonly number[]): void {
    assert.deepEqual(
      all.map(({ frame: bytes }) => numberOf(bytes)),
      numbers,
    );
    for (const [i, number] of numbers.entries()) {
      const wanted = frame(number, this.device);
      assert.ok(Buffer.compare(all[i].frame, wanted) === 0, `packet ${number}`);
      const metadata = metadataFor(number, wanted.length, this.features);
      assert.ok(Buffer.compare(all[i].header, headerOf(metadata)) === 0, `header of ${number}`);
    }
  }
}

const range = (from: number, to: number): number[] =>
  Array.from({ length: to - from }, (_, i) => from + i);

for (const { name, device, form, sizes } of VARIANTS) {
  describe(name, () => {
    for (const bufs of sizes) {
      test(`packets keep order, content and metadata both ways when ${bufs} buffers wrap`, () => {
        const rings = new Rings(device, form, bufs);
        // Three laps (for the largest rings, which are slow here,
        // one and a bit), and more than a batch.
        const packets = bufs <= 1024 || FULL ? Math.max(3 * bufs, 200) : bufs + 20;
        const got: Arrived[] = [];
        for (let n = 0; n < packets; n++) {
          if (!rings.out(n)) {
            rings.settle();
            assert.ok(rings.out(n), `packet ${n}`);
          }
          rings.in(n);
          if (n % 7 === 0) {
            rings.settle();
            got.push(...rings.arrived());
          }
        }
        for (let idle = 0; idle < 3; idle++) {
          if (rings.settle() > 0) idle = 0;
          got.push(...rings.arrived());
        }
        rings.expectSent(range(0, packets));
        rings.expectArrived(got, range(0, packets));
        const [pair] = rings.local.pairs;
        assert.equal(pair.txCounters[PACKETS], packets);
        assert.equal(pair.rxCounters[PACKETS], packets);
        rings.close();
      });
    }

    test("send returns false when the ring is full, and a blocked port keeps packets in order", () => {
      const rings = new Rings(device, form, 64);
      rings.ports[0].room = 5;
      let n = 0;
      while (rings.out(n)) n++;
      assert.ok(n <= 64 && n > 10);
      rings.settle();
      assert.equal(rings.ports[0].sent.length, 5);
      // The completed buffers can be used again. The other packets still wait.
      assert.ok(rings.out(n));
      rings.ports[0].room = 1000;
      for (const pair of rings.local.pairs) pair.portWritable();
      rings.settle();
      rings.expectSent(range(0, n + 1));
      rings.close();
    });

    test("packets wait when the receive ring is empty", () => {
      const rings = new Rings(device, form, 16);
      for (let n = 0; n < 40; n++) rings.in(n);
      rings.settle();
      const [pair] = rings.local.pairs;
      assert.equal(pair.rxStarved, true);
      assert.equal(pair.rxCounters[NO_BUFFERS], 1);
      const got = rings.arrived();
      assert.ok(got.length > 0 && got.length < 40);
      for (let turns = 0; got.length < 40 && turns < 40; turns++) {
        rings.settle();
        got.push(...rings.arrived());
      }
      rings.expectArrived(got, range(0, 40));
      rings.close();
    });

    test("packet is dropped and counted when the port refuses it", () => {
      const rings = new Rings(device, form, 16);
      rings.ports[0].refuses = (bytes) => numberOf(bytes) % 2 === 1;
      for (let n = 0; n < 6; n++) {
        assert.ok(rings.out(n));
        rings.settle();
      }
      rings.expectSent([0, 2, 4]);
      assert.equal(rings.local.pairs[0].txCounters[DROP_PORT], 3);
      rings.close();
    });

    for (const bufs of [16, 64, 128, 256].filter((n) => sizes === SIZES || sizes.includes(n))) {
      test(`close returns all of ${bufs} buffers, and the ring is empty when it restarts on the same context`, () => {
        const rings = new Rings(device, form, bufs);
        for (let lap = 0; lap < 5; lap++) {
          const [port] = rings.ports;
          port.sent.length = 0;
          port.sentMetadata.length = 0;
          port.room = 2;
          // Odd numbers everywhere, so that each lap ends at another slot.
          for (let n = 0; n < 5; n++) assert.ok(rings.out(n));
          rings.in(lap);
          rings.settle();
          // Some of it reached the guest and was not collected: close() collects it.
          const { rx } = rings.driver.close();
          assert.ok(rx <= bufs && rx >= bufs - 3);
          assert.equal(rings.driver.tx[0].outstanding, 0);
          assert.equal(rings.driver.rx[0].outstanding, 0);
          port.room = 1000;
          rings.driver.enable();
          const before = port.sent.length;
          assert.equal(rings.settle(), 0, "nothing is there");
          assert.equal(port.sent.length, before, "nothing old goes out");
          rings.driver.refill(0);
          rings.in(900);
          rings.settle();
          rings.expectArrived(rings.arrived(), [900]);
          assert.equal(rings.local.pairs[0].rxCounters[RING_ERRORS], 0);
          assert.equal(rings.local.pairs[0].txCounters[RING_ERRORS], 0);
        }
        rings.close();
      });
    }

    test("one kick is sent while the host polls, and one interrupt while the guest polls", () => {
      const rings = new Rings(device, form, 256);
      const [pair] = rings.local.pairs;
      pair.disarmKicks();
      const kicks = rings.driver.counters.kicks;
      for (let n = 0; n < 50; n++) assert.ok(rings.out(n));
      assert.equal(rings.driver.counters.kicks, kicks, "kicks are off");
      rings.settle();
      pair.armKicks();
      for (let n = 50; n < 55; n++) assert.ok(rings.out(n));
      const asked = rings.driver.counters.kicks - kicks;
      assert.ok(form === "v1" ? asked >= 1 : asked === 1, `${asked} kicks`);
      rings.settle();
      rings.driver.rx[0].arm(0);
      const interrupts = rings.vectors.length;
      for (let n = 0; n < 50; n++) {
        rings.in(n);
        rings.settle();
      }
      assert.equal(rings.vectors.length, interrupts, "interrupts are off");
      rings.arrived();
      assert.equal(rings.driver.rx[0].arm(1), false);
      for (let n = 0; n < 5; n++) rings.in(n);
      rings.settle();
      assert.equal(rings.vectors.length, interrupts + 1, "a batch interrupts once");
      rings.close();
    });

    test("packets are neither lost nor doubled when the port changes, and the link follows it", () => {
      const rings = new Rings(device, form, 64);
      const [pair] = rings.local.pairs;
      const [first] = rings.ports;
      first.room = 3;
      for (let n = 0; n < 6; n++) assert.ok(rings.out(n));
      rings.settle();
      const second = new TestPort();
      second.incoming.push(frame(700, device));
      pair.setPort(second);
      rings.settle();
      assert.deepEqual(first.sent.map(numberOf), [0, 1, 2]);
      assert.deepEqual(second.sent.map(numberOf), [3, 4, 5]);
      assert.deepEqual(
        rings.arrived().map((packet) => numberOf(packet.frame)),
        [700],
      );
      assert.equal(rings.nic.link.up, true);
      pair.setPort(new NullPort());
      assert.equal(rings.nic.link.up, false);
      assert.ok(rings.out(6));
      rings.settle();
      assert.equal(pair.txCounters[DROP_PORT], 1);
      pair.setPort(second);
      assert.equal(rings.nic.link.up, true);
      rings.close();
    });

    test("lost interrupt is sent again until its completions are reclaimed, up to a full ring", () => {
      const rings = new Rings(device, form, 16);
      const [pair] = rings.local.pairs;
      const sentAgain = () => {
        const before = rings.vectors.length;
        pair.lookAgain();
        return rings.vectors.length - before;
      };
      // A port keeps free buffers for a packet of several, if the format allows one.
      const most = rings.features & FEATURES.SG ? 9 : 16;
      // Several laps: each count begins at another slot.
      for (let count = 1; count <= most; count++) {
        assert.equal(rings.driver.rx[0].arm(1), false);
        for (let n = 0; n < count; n++) rings.in(n);
        rings.settle();
        assert.equal(sentAgain(), 1, `${count} received`);
        assert.equal(sentAgain(), 1, `${count} received, again`);
        assert.equal(rings.arrived().length, count);
        assert.equal(sentAgain(), 0, `${count} reclaimed`);
      }
      for (let count = 1; count <= 16 && rings.driver.tx[0].free >= count; count++) {
        assert.equal(rings.driver.tx[0].arm(count), false);
        for (let n = 0; n < count; n++) assert.ok(rings.out(n));
        rings.settle();
        assert.equal(sentAgain(), 1, `${count} sent`);
        rings.driver.clean(0);
        assert.equal(sentAgain(), 0, `${count} reclaimed`);
      }
      rings.close();
    });

    test("arming reports work when it is there before, on both sides", () => {
      const rings = new Rings(device, form, 16);
      const [pair] = rings.local.pairs;
      assert.ok(rings.out(1));
      assert.equal(pair.armKicks(), true, "the host sees it");
      rings.settle();
      assert.equal(rings.driver.tx[0].arm(1), true, "the guest sees its completion");
      rings.driver.clean(0);
      rings.in(1);
      rings.settle();
      assert.equal(rings.driver.rx[0].arm(1), true, "and its packet");
      rings.close();
    });

    test("host keeps running when a guest overwrites its context, and a reset repairs it", () => {
      fc.assert(
        fc.property(
          fc.array(fc.tuple(fc.nat(2608 - 2096 + 32 * 16 - 1), fc.nat(255)), { maxLength: 60 }),
          fc.nat(1),
          (scribbles, queue) => {
            const rings = new Rings(device, form, 16);
            const context = rings.driver.contextOf(queue);
            rings.out(1);
            for (const [at, value] of scribbles) {
              if (2096 + at < context.length) context[2096 + at] = value;
            }
            for (let turn = 0; turn < 20; turn++) {
              rings.in(turn);
              rings.local.turn();
              rings.local.pairs[0].armKicks();
            }
            rings.nic.reset();
            rings.close();
          },
        ),
        { numRuns: FULL ? 2000 : 25 },
      );
    });
  });
}

/**
 * What goes in comes out, in order, unchanged, with its metadata: across wraps, full and empty
 * rings, stops and restarts.
 */
import assert from "node:assert/strict";
import { FEATURES } from "../abi/index.ts";
import type { RingFormat } from "../devices/format.ts";
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
import { Bench, frameOf, numberOf, TestPort } from "./bench.ts";
import { type Case, casesOf, type Subject } from "./case.ts";

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

/** Returns a frame that fits one buffer if the format takes no more. */
function frame(number: number, format: RingFormat): Uint8Array {
  return format.features & FEATURES.SG ? frameOf(number) : frameOf(number).slice(0, BUFFER);
}

interface Arrived {
  readonly frame: Uint8Array;
  readonly header: Uint8Array;
}

class Rings extends Bench {
  readonly features: number;
  readonly format: RingFormat;

  constructor({ format, form }: Subject, bufs: number) {
    super({
      device: format,
      form,
      config: { rxBufs: bufs, txBufs: bufs },
      mib: 8 + Math.ceil((bufs * (2 * BUFFER + 200)) / 2 ** 20),
      guest: { bufferSize: BUFFER, features: format.features },
    });
    this.format = format;
    this.features = this.driver.features;
    this.driver.open();
  }

  out(number: number): boolean {
    const packet = frame(number, this.format);
    const metadata = metadataFor(number, packet.length, this.features);
    return this.driver.send(0, packet, headerOf(metadata));
  }

  in(number: number): void {
    const packet = frame(number, this.format);
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
      assert.ok(Buffer.compare(sent[i], frame(number, this.format)) === 0, `packet ${number}`);
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
      const wanted = frame(number, this.format);
      assert.ok(Buffer.compare(all[i].frame, wanted) === 0, `packet ${number}`);
      const metadata = metadataFor(number, wanted.length, this.features);
      assert.ok(Buffer.compare(all[i].header, headerOf(metadata)) === 0, `header of ${number}`);
    }
  }
}

const range = (from: number, to: number): number[] =>
  Array.from({ length: to - from }, (_, i) => from + i);

function keepsEveryPacket(subject: Subject, bufs: number): void {
  const rings = new Rings(subject, bufs);
  // Three laps (for the largest rings, which are slow here,
  // one and a bit), and more than a batch.
  const packets = bufs <= 1024 || subject.runs > 1000 ? Math.max(3 * bufs, 200) : bufs + 20;
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
  assert.equal(pair.tx.counters[PACKETS], packets);
  assert.equal(pair.rx.counters[PACKETS], packets);
  rings.close();
}

function restartsEmpty(subject: Subject, bufs: number): void {
  const rings = new Rings(subject, bufs);
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
    assert.equal(rings.local.pairs[0].rx.counters[RING_ERRORS], 0);
    assert.equal(rings.local.pairs[0].tx.counters[RING_ERRORS], 0);
  }
  rings.close();
}

/** By name: what holds for a ring of any format. */
const CHECKS: Readonly<Record<string, (subject: Subject) => void>> = {
  "send returns false when the ring is full, and a blocked port keeps packets in order": (
    subject,
  ) => {
    const rings = new Rings(subject, 64);
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
  },

  "packets wait when the receive ring is empty": (subject) => {
    const rings = new Rings(subject, 16);
    for (let n = 0; n < 40; n++) rings.in(n);
    rings.settle();
    const [pair] = rings.local.pairs;
    assert.equal(pair.rxStarved, true);
    assert.equal(pair.rx.counters[NO_BUFFERS], 1);
    const got = rings.arrived();
    assert.ok(got.length > 0 && got.length < 40);
    for (let turns = 0; got.length < 40 && turns < 40; turns++) {
      rings.settle();
      got.push(...rings.arrived());
    }
    rings.expectArrived(got, range(0, 40));
    rings.close();
  },

  "packet is dropped and counted when the port refuses it": (subject) => {
    const rings = new Rings(subject, 16);
    rings.ports[0].refuses = (bytes) => numberOf(bytes) % 2 === 1;
    for (let n = 0; n < 6; n++) {
      assert.ok(rings.out(n));
      rings.settle();
    }
    rings.expectSent([0, 2, 4]);
    assert.equal(rings.local.pairs[0].tx.counters[DROP_PORT], 3);
    rings.close();
  },

  "one kick is sent while the host polls, and one interrupt while the guest polls": (subject) => {
    const rings = new Rings(subject, 256);
    const [pair] = rings.local.pairs;
    pair.disarmKicks();
    const kicks = rings.driver.counters.kicks;
    for (let n = 0; n < 50; n++) assert.ok(rings.out(n));
    assert.equal(rings.driver.counters.kicks, kicks, "kicks are off");
    rings.settle();
    pair.armKicks();
    for (let n = 50; n < 55; n++) assert.ok(rings.out(n));
    const asked = rings.driver.counters.kicks - kicks;
    assert.ok(subject.form === "v1" ? asked >= 1 : asked === 1, `${asked} kicks`);
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
  },

  "packets are neither lost nor doubled when the port changes, and the link follows it": (
    subject,
  ) => {
    const rings = new Rings(subject, 64);
    const [pair] = rings.local.pairs;
    const [first] = rings.ports;
    first.room = 3;
    for (let n = 0; n < 6; n++) assert.ok(rings.out(n));
    rings.settle();
    const second = new TestPort();
    second.incoming.push(frame(700, subject.format));
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
    assert.equal(pair.tx.counters[DROP_PORT], 1);
    pair.setPort(second);
    assert.equal(rings.nic.link.up, true);
    rings.close();
  },

  "lost interrupt is sent again until its completions are reclaimed, up to a full ring": (
    subject,
  ) => {
    const rings = new Rings(subject, 16);
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
  },

  "arming reports work when it is there before, on both sides": (subject) => {
    const rings = new Rings(subject, 16);
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
  },
};

/** The path of packets: order, content, metadata, back-pressure, interrupts, restarts. */
export function ringCases(subject: Subject): Case[] {
  const cases: Case[] = [];
  for (const bufs of subject.sizes) {
    cases.push({
      name: `packets keep order, content and metadata both ways when ${bufs} buffers wrap`,
      run: () => keepsEveryPacket(subject, bufs),
    });
  }
  for (const bufs of [16, 64, 128, 256].filter((n) => n <= 64 || subject.sizes.includes(n))) {
    cases.push({
      name: `close returns all of ${bufs} buffers, and the ring is empty when it restarts on the same context`,
      run: () => restartsEmpty(subject, bufs),
    });
  }
  return [...cases, ...casesOf(subject, CHECKS)];
}

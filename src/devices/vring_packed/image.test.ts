/**
 * vring_packed against images of its bytes, written by hand from VIRTIO 1.1: descriptors (section
 * 2.7.5: address u64, length u32, id u16, flags u16; AVAIL is bit 7, USED bit 15, WRITE bit 1),
 * wrap counters (2.7.1), event suppression structures (2.7.8: index in bits 0-14, wrap counter in
 * bit 15, then flags u16; 0 enable, 1 disable, 2 at the index) and out-of-order completions
 * (2.7.4). Nothing of `layout.ts` is used: offsets and numbers are repeated here.
 */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { Bench } from "../../../test/support/guest.ts";
import type { GuestRing } from "../../guest/ring.ts";
import { newQueueCounters } from "../../memory/counters.ts";
import { Batch, type GuestMemory } from "../../memory/index.ts";
import { vringPacked } from "./host.ts";

const N = 16;
/** From the start of a context. */
const PRIVATE = 2096;
const DRIVER_EVENT = PRIVATE + 192;
const DEVICE_EVENT = PRIVATE + 256;
const DESCRIPTORS = PRIVATE + 320;
const FORMS = ["helperfree", "v1"] as const;

const hex = (bytes: Uint8Array, at: number, length: number): string =>
  Buffer.from(bytes.subarray(at, at + length)).toString("hex");
const descriptor = (bytes: Uint8Array, slot: number): string =>
  hex(bytes, DESCRIPTORS + 16 * slot, 16);
/** Bytes of a descriptor, from the specification's fields. */
function image(address: number, length: number, id: number, flags: number): string {
  const view = new DataView(new ArrayBuffer(16));
  view.setBigUint64(0, BigInt(address), true);
  view.setUint32(8, length, true);
  view.setUint16(12, id, true);
  view.setUint16(14, flags, true);
  return Buffer.from(view.buffer).toString("hex");
}
function write(bytes: Uint8Array, at: number, text: string): void {
  bytes.set(Buffer.from(text, "hex"), at);
}

/** A guest whose host never moves; its rings' contexts as bytes. */
function guest(form: (typeof FORMS)[number]) {
  const bench = new Bench({ device: vringPacked, form, config: { rxBufs: N, txBufs: N } });
  bench.driver.open();
  // Receive queues come first.
  const { driver } = bench;
  return {
    bench,
    rx: driver.rx[0],
    tx: driver.tx[0],
    rxBytes: driver.contextOf(0),
    txBytes: driver.contextOf(1),
  };
}

describe("what the guest writes", () => {
  for (const form of FORMS) {
    test(`${form}: a fresh transmit ring: wrap counters 1, interrupts and kicks at the first slot`, () => {
      const { bench, txBytes } = guest(form);
      // Guest: free id 0, next available 0, next used 0, both wrap counters 1, flags of this lap
      // AVAIL.
      assert.equal(hex(txBytes, PRIVATE, 10), "00000000000001018000");
      // Driver event: index 0, wrap 1, at the index.
      assert.equal(hex(txBytes, DRIVER_EVENT, 4), "00800200");
      for (let slot = 0; slot < N; slot++) {
        assert.equal(descriptor(txBytes, slot), "00".repeat(16));
      }
      bench.close();
    });

    test(`${form}: sent packets: AVAIL in the first lap, USED alone in the second`, () => {
      const { bench, tx, txBytes } = guest(form);
      const publish = (length: number): number => {
        const address = tx.addressOf(tx.nextId());
        tx.publish(1, length);
        return address;
      };
      const first = publish(60);
      assert.equal(descriptor(txBytes, 0), image(first, 60, 0, 0x0080));
      for (let slot = 1; slot < N; slot++) publish(60 + slot);
      assert.equal(txBytes[DESCRIPTORS + 16 * 15 + 14], 0x80);
      // The lap is over: index 0 again, available wrap counter 0, flags USED.
      assert.equal(hex(txBytes, PRIVATE + 2, 2), "0000");
      assert.equal(hex(txBytes, PRIVATE + 6, 4), "00010080");
      // The device uses slot 0 with id 0: AVAIL and USED are both its lap's 1.
      write(txBytes, DESCRIPTORS + 14, "8080");
      assert.equal(
        tx.collect(() => {}),
        1,
      );
      assert.equal(
        tx.collect(() => {}),
        0,
        "slot 1 is not used",
      );
      const again = publish(1000);
      assert.equal(descriptor(txBytes, 0), image(again, 1000, 0, 0x8000));
      bench.close();
    });

    test(`${form}: receive buffers are writable: flag bit 1, in both laps`, () => {
      const { bench, rx, rxBytes } = guest(form);
      for (let slot = 0; slot < N; slot++) {
        assert.equal(hex(rxBytes, DESCRIPTORS + 16 * slot + 12, 4), `${hexU16(slot)}8200`);
      }
      write(rxBytes, DESCRIPTORS + 8, "40000000");
      write(rxBytes, DESCRIPTORS + 14, "8080");
      const got: number[] = [];
      assert.equal(
        rx.collect((_id, length) => got.push(length)),
        1,
      );
      assert.deepEqual(got, [0x40]);
      rx.publish(1, 2048);
      assert.equal(hex(rxBytes, DESCRIPTORS + 12, 4), "00000280");
      bench.close();
    });

    test(`${form}: interrupts: off is flags 1; the n-th from here is its index, with the wrap counter of its lap`, () => {
      const { bench, tx, txBytes } = guest(form);
      const event = () => hex(txBytes, DRIVER_EVENT, 4);
      tx.arm(0);
      assert.equal(event().slice(4), "0100");
      assert.equal(tx.arm(3), false);
      assert.equal(event(), "02800200");
      assert.equal(tx.arm(16), false);
      assert.equal(event(), "0f800200");
      // Ten slots are used and collected: the tenth from there is slot 3 of the next lap, wrap
      // counter 0.
      for (let n = 0; n < 10; n++) tx.publish(1, 60);
      for (let n = 0; n < 10; n++) write(txBytes, DESCRIPTORS + 16 * n + 14, "8080");
      while (tx.collect(() => {}) > 0);
      assert.equal(tx.arm(10), false);
      assert.equal(event(), "03000200");
      // It is there already: the seventh slot of this lap, used.
      tx.publish(1, 60);
      write(txBytes, DESCRIPTORS + 16 * 10 + 14, "8080");
      assert.equal(tx.arm(1), true);
      bench.close();
    });

    test(`${form}: kicks: as the device's event says, in either lap`, () => {
      const { bench, tx, txBytes } = guest(form);
      const rang = (event: string): boolean => {
        write(txBytes, DEVICE_EVENT, event);
        tx.kickNeeded = false;
        tx.publish(1, 60);
        return tx.kickNeeded;
      };
      assert.equal(rang("00000000"), true, "enabled: always");
      assert.equal(rang("00000100"), false, "disabled: never");
      assert.equal(rang("02800200"), true, "at slot 2: this is slot 2");
      assert.equal(rang("02800200"), false, "slot 3: past it");
      assert.equal(rang("06800200"), false, "slot 4: before it");
      for (let slot = 5; slot < N; slot++) assert.equal(rang("00000200"), false, "of the next lap");
      for (let slot = 0; slot < N; slot++) write(txBytes, DESCRIPTORS + 16 * slot + 14, "8080");
      while (tx.collect(() => {}) > 0);
      assert.equal(rang("00800200"), false, "slot 0 of the lap that is over");
      assert.equal(rang("01000200"), true, "slot 1 of this one");
      bench.close();
    });
  }
});

const hexU16 = (value: number): string =>
  [value & 0xff, value >> 8].map((byte) => byte.toString(16).padStart(2, "0")).join("");

describe("out-of-order completions", () => {
  /** A device that completes what it has in any order, from the specification's words alone. */
  class Device {
    readonly #bytes: Uint8Array;
    readonly #taken: number[] = [];
    #available = 0;
    #used = 0;

    constructor(bytes: Uint8Array) {
      this.#bytes = bytes;
    }

    /** Takes the ids of available descriptors, up to the first slot that is none. */
    fetch(): void {
      for (;;) {
        const at = DESCRIPTORS + 16 * (this.#available % N);
        const wrap = Math.floor(this.#available / N) % 2 === 0;
        const flags = this.#bytes[at + 14] | (this.#bytes[at + 15] << 8);
        if (((flags & 0x80) !== 0) !== wrap || ((flags & 0x8000) !== 0) === wrap) return;
        this.#taken.push(this.#bytes[at + 12] | (this.#bytes[at + 13] << 8));
        this.#available++;
      }
    }

    /**
     * Completes one of those taken; the used descriptor goes into the next slot. @returns its id
     */
    complete(which: (count: number) => number, length: number): number {
      const [id] = this.#taken.splice(which(this.#taken.length), 1);
      const wrap = Math.floor(this.#used / N) % 2 === 0;
      // A device writes id, length and flags; its address is no longer used.
      const slot = image(0xdead_beef, length, id, wrap ? 0x8080 : 0);
      write(this.#bytes, DESCRIPTORS + 16 * (this.#used++ % N), slot);
      return id;
    }

    get taken(): number {
      return this.#taken.length;
    }
  }

  /** Any sequence will do, as long as it is the same each time. */
  function chooser(seed: number): (count: number) => number {
    let state = seed;
    return (count) => {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      return Math.floor((state / 2 ** 32) * count);
    };
  }

  function run(ring: GuestRing, bytes: Uint8Array, seed: number): void {
    const choose = chooser(seed);
    const device = new Device(bytes);
    /** The driver's buffer behind each id of the ring. */
    const bufferOf = new Map<number, number>();
    const outstanding = new Set<number>();
    for (let round = 0; round < 300; round++) {
      for (let n = choose(ring.free + 1); n > 0; n--) {
        const id = bytes[PRIVATE] | (bytes[PRIVATE + 1] << 8);
        bufferOf.set(id, ring.nextId());
        outstanding.add(ring.nextId());
        ring.publish(1, 2048);
      }
      device.fetch();
      const expected: [number, number][] = [];
      for (let n = choose(device.taken + 1); n > 0; n--) {
        const length = 1 + choose(2048);
        expected.push([bufferOf.get(device.complete(choose, length)) as number, length]);
      }
      const got: [number, number][] = [];
      while (ring.collect((id, length) => got.push([id, length])) > 0);
      assert.deepEqual(got, expected, `round ${round}`);
      for (const [id] of got) assert.ok(outstanding.delete(id));
      assert.equal(ring.outstanding, outstanding.size);
    }
  }

  for (const form of FORMS) {
    test(`${form}: each buffer is reclaimed with its own length, for many laps`, () => {
      for (let seed = 1; seed <= 4; seed++) {
        const { bench, tx, txBytes } = guest(form);
        run(tx, txBytes, seed);
        bench.close();
      }
    });

    test(`${form}: an id that is not outstanding is an error, not a buffer`, () => {
      const { bench, tx, txBytes } = guest(form);
      tx.publish(1, 60);
      tx.publish(1, 60);
      write(txBytes, DESCRIPTORS, image(0, 60, 1, 0x8080));
      assert.equal(
        tx.collect(() => {}),
        1,
      );
      // The same one again, then an id out of range.
      for (const id of [1, N]) {
        write(txBytes, DESCRIPTORS + 16, image(0, 60, id, 0x8080));
        assert.throws(() => tx.collect(() => {}), /collects completions failed/);
      }
      bench.close();
    });
  }
});

describe("what the host makes of an image", () => {
  const BASE = 0x40_0000;
  /** All of guest memory, at an address that says what it is. */
  const memory: GuestMemory = {
    ...{ generation: 0, ranges: [] },
    translate: (address) => BASE + address,
  };

  function host(direction: "rx" | "tx") {
    const context = new ArrayBuffer(vringPacked.contextSize(N));
    vringPacked.initialise(direction, context, N);
    const counters = newQueueCounters();
    const config = { context, memory, bufs: N, counters, features: 0, maxPacket: 1518 };
    const batch = new Batch(64, 64);
    batch.clear();
    return { config, batch, counters, bytes: new Uint8Array(context) };
  }

  test("available descriptors of its lap become packets; used ones of the same lap, or none, end them", () => {
    const { config, batch, bytes } = host("tx");
    const ring = vringPacked.tx(config);
    write(bytes, DESCRIPTORS, image(0x1000, 60, 5, 0x0080));
    write(bytes, DESCRIPTORS + 16, image(0x2000, 1514, 3, 0x0080));
    // AVAIL as in the lap before, USED of the same: neither available.
    write(bytes, DESCRIPTORS + 32, image(0x3000, 60, 4, 0x8000));
    write(bytes, DESCRIPTORS + 48, image(0x4000, 60, 6, 0x0080));
    assert.equal(ring.gather(batch), 2);
    assert.deepEqual([...batch.address.subarray(0, 2)], [BASE + 0x1000, BASE + 0x2000]);
    assert.deepEqual([...batch.length.subarray(0, 2)], [60, 1514]);
    // The driver's event: at slot 0 of lap 1, which is one of the two.
    write(bytes, DRIVER_EVENT, "00800200");
    assert.equal(ring.consume(batch, 2), true);
    // Used: both bits as the wrap counter; id and length stay the driver's.
    assert.equal(hex(bytes, DESCRIPTORS + 12, 4), "05008080");
    assert.equal(hex(bytes, DESCRIPTORS + 16 + 12, 4), "03008080");
    assert.equal(hex(bytes, DESCRIPTORS + 32 + 12, 4), "04000080", "not touched");
  });

  test("received lengths are written, and completed slots of the second lap have neither bit", () => {
    const { config, batch, bytes } = host("rx");
    const ring = vringPacked.rx(config);
    const lap = (flags: number) => {
      for (let slot = 0; slot < N; slot++) {
        write(bytes, DESCRIPTORS + 16 * slot, image(0x1000 * (slot + 1), 2048, slot, flags));
      }
      batch.clear();
      assert.equal(ring.offer(batch, N), N);
      for (let n = 0; n < N; n++) batch.endReceived(60 + n);
      ring.deliver(batch);
    };
    lap(0x0082);
    assert.equal(hex(bytes, DESCRIPTORS + 8, 8), "3c00000000008080");
    assert.equal(hex(bytes, DESCRIPTORS + 16 * 15 + 8, 8), "4b0000000f008080");
    lap(0x8002);
    assert.equal(hex(bytes, DESCRIPTORS + 8, 8), "3c00000000000000");
    assert.equal(hex(bytes, DESCRIPTORS + 16 * 15 + 8, 8), "4b0000000f000000");
  });

  test("kicks on is the index and wrap counter of its next slot, off is flags 1", () => {
    const { config, batch, bytes } = host("tx");
    const ring = vringPacked.tx(config);
    assert.equal(ring.enableKicks(), false);
    assert.equal(hex(bytes, DEVICE_EVENT, 4), "00800200");
    ring.disableKicks();
    assert.equal(hex(bytes, DEVICE_EVENT, 4).slice(4), "0100");
    for (let slot = 0; slot < N; slot++) {
      write(bytes, DESCRIPTORS + 16 * slot, image(0x1000, 60, slot, 0x0080));
    }
    assert.equal(ring.enableKicks(), true, "there is work");
    ring.consume(batch, ring.gather(batch));
    assert.equal(ring.enableKicks(), false);
    assert.equal(hex(bytes, DEVICE_EVENT, 4), "00000200", "slot 0 of the lap whose counter is 0");
  });

  /**
   * Event, and whether completing slots 14, 15, 0 and 1 (the wrap counter turns between) is to
   * interrupt.
   */
  const EVENTS: readonly [string, string, boolean][] = [
    ["enabled", "00000000", true],
    ["disabled", "00000100", false],
    ["at slot 13, just before", "0d800200", false],
    ["at slot 14", "0e800200", true],
    ["at slot 15", "0f800200", true],
    ["at slot 0 of the next lap", "00000200", true],
    ["at slot 1 of the next lap", "01000200", true],
    ["at slot 2 of the next lap, just after", "02000200", false],
    ["at slot 1 of the lap before", "01800200", false],
  ];

  for (const [what, event, wanted] of EVENTS) {
    test(`interrupt ${what}: ${wanted ? "yes" : "no"}`, () => {
      const { config, batch, bytes } = host("tx");
      const ring = vringPacked.tx(config);
      const publish = (slot: number, flags: number) =>
        write(bytes, DESCRIPTORS + 16 * slot, image(0x1000, 60, slot, flags));
      for (let slot = 0; slot < 14; slot++) publish(slot, 0x0080);
      ring.consume(batch, ring.gather(batch));
      for (const slot of [14, 15]) publish(slot, 0x0080);
      for (const slot of [0, 1]) publish(slot, 0x8000);
      write(bytes, DRIVER_EVENT, event);
      batch.clear();
      assert.equal(ring.gather(batch), 4);
      assert.equal(ring.consume(batch, 4), wanted);
    });
  }
});

/**
 * Scattered memory: buffers, blobs, page lists and contexts that span several mappings, several
 * files, or huge pages. Every split, every format, both directions, whole drivers.
 */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { CutMemory, type CutOptions } from "../../test/support/cut-memory.ts";
import { Bench, FULL, frameOf, numberOf } from "../../test/support/guest.ts";
import { BAR_REGISTERS, CONTEXT_PAGE, REG } from "../abi/index.ts";
import type { RingFormat } from "../devices/format.ts";
import { FORMATS } from "../devices/registry.ts";
import { sring } from "../devices/sring/host.ts";
import { sringGso } from "../devices/sring_gso/host.ts";
import { mapPageList } from "../engine/contexts.ts";
import { DROP_BAD_ADDRESS, PACKETS } from "../memory/counters.ts";
import { GSO_TCP_V4, NEEDS_CSUM } from "../memory/index.ts";
import { writeBar } from "../nic/bars.ts";
import { setContext } from "../nic/context.ts";
import { deliverBlob } from "../nic/programs.ts";
import { GuestDriver } from "./driver.ts";

const FORMS = ["helperfree", "v1"] as const;
const HUGE = 2 ** 21;

/** A bench whose device sees scattered memory. */
class SplitBench extends Bench {
  machine!: CutMemory;
  readonly #form: (typeof FORMS)[number];

  constructor(
    device: RingFormat,
    form: (typeof FORMS)[number] = "helperfree",
    { bufferSize = 2048, bufs = 16 } = {},
  ) {
    let machine: CutMemory | undefined;
    super({
      ...{ device, form, mib: 4, config: { rxBufs: bufs, txBufs: bufs } },
      guest: { bufferSize, features: device.features },
      machine: (memory) => {
        machine = new CutMemory(memory);
        return machine;
      },
    });
    this.machine = machine!;
    this.#form = form;
  }

  cut(at: readonly number[], options: CutOptions = {}): void {
    this.machine.cut(at, options);
    this.nic.memoryChanged();
  }

  /** Returns the addresses `offset` bytes into every buffer. */
  inBuffers(offset: number): number[] {
    const { rx, tx } = this.driver;
    return [...rx, ...tx].flatMap((ring) =>
      Array.from({ length: 16 }, (_, id) => ring.addressOf(id) + offset),
    );
  }

  /** Returns the guest pages of all contexts. */
  contextPages(): number[] {
    return this.nic.queues.flatMap(({ current }) => {
      const { kind, address, size, pages } = current!.context.record;
      if (kind === "pages") return [...pages];
      return Array.from({ length: Math.ceil(size / CONTEXT_PAGE) }, (_, i) => address + i * 4096);
    });
  }

  /** Resets the NIC and starts the driver again. */
  reopen(): void {
    const { abilities } = this.nic.state;
    this.nic.reset();
    writeBar(this.nic, BAR_REGISTERS, REG.EXT_ACK, 4, abilities);
    this.driver.open();
  }

  /** Starts another driver, with contexts and buffers at other addresses. */
  newDriver(): void {
    this.driver = new GuestDriver(this.local, this.memory, { form: this.#form });
  }

  /** Checks that one frame each way arrives whole. */
  expectTraffic(number: number, what: string): void {
    const frame = frameOf(number);
    const [port] = this.ports;
    port.sent.length = 0;
    this.driver.send(0, frame);
    port.incoming.push(frame);
    this.settle();
    assert.deepEqual(port.sent, [frame], `sent, ${what}`);
    assert.deepEqual(this.take(), [frame], `received, ${what}`);
    this.driver.clean(0);
    this.driver.refill(0);
  }

  override close(): void {
    super.close();
    this.machine.close();
  }
}

for (const device of FORMATS) {
  for (const form of FORMS) {
    describe(`${device.name}, ${form}`, () => {
      test("frames arrive whole when buffers are split at any byte", () => {
        const bench = new SplitBench(device, form);
        bench.driver.open();
        const frame = frameOf(40);
        for (let at = 1; at <= frame.length; at++) {
          bench.cut(bench.inBuffers(at));
          bench.expectTraffic(40, `cut at ${at}`);
        }
        // A range of one byte; and many ranges.
        bench.cut([...bench.inBuffers(20), ...bench.inBuffers(21)]);
        bench.expectTraffic(40, "split at 20 and 21");
        bench.cut([4, 8, 15, 16, 23, 42].flatMap((at) => bench.inBuffers(at)));
        for (let n = 0; n < 60; n++) bench.expectTraffic(n * 20, `frame ${n} in seven ranges`);
        bench.close();
      });

      test("buffer is dropped and counted once when it lies on a hole", () => {
        const bench = new SplitBench(device, form);
        bench.driver.open();
        const [pair] = bench.local.pairs;
        const [tx] = bench.driver.tx;
        const bad = tx.addressOf(tx.nextId(1));
        bench.cut([bad + 30, bad + 40], { hole: 1 });
        for (let n = 0; n < 3; n++) bench.driver.send(0, frameOf(n));
        bench.settle();
        assert.deepEqual(bench.ports[0].sent.map(numberOf), [0, 2]);
        assert.equal(pair.tx.counters[DROP_BAD_ADDRESS], 1);
        assert.equal(pair.tx.counters[PACKETS], 2);
        bench.close();
      });

      test("contexts work when each page is in a mapping or a file of its own", () => {
        const bench = new SplitBench(device, form, { bufs: 256 });
        bench.driver.open();
        const pages = bench.contextPages();
        assert.ok(pages.length >= 6, "several pages each");
        const cuts = pages.flatMap((page) => [page, page + CONTEXT_PAGE]);
        for (const [what, options] of Object.entries({
          mappings: {},
          files: { files: true },
          "huge pages": { unit: HUGE },
          "files with huge pages": { files: true, unit: HUGE },
        })) {
          bench.cut(cuts, options);
          bench.reopen();
          assert.equal(bench.nic.refusals.counts.context, 0, bench.nic.refusals.last);
          for (let n = 0; n < 40; n++) bench.expectTraffic(n, what);
        }
        bench.close();
      });
    });
  }

  test(`${device.name}: contiguous context works anywhere in and across huge pages`, () => {
    const bench = new SplitBench(device, "v1", { bufs: 256 });
    bench.driver.open();
    const size = bench.nic.queues[0].contextSize;
    const { nic } = bench;
    const write = (address: number) => {
      writeBar(nic, BAR_REGISTERS, REG.QUEUE_SELECT, 4, 0);
      writeBar(nic, BAR_REGISTERS, REG.CTX_PADDR_LO, 4, address);
      writeBar(nic, BAR_REGISTERS, REG.CTX_PADDR_HI, 4, 0);
    };
    const [{ address: base }] = bench.memory.ranges;
    for (const [unit, files] of [
      [4096, false],
      [HUGE, false],
      [HUGE, true],
    ] as const) {
      const border = base + HUGE;
      bench.cut([border], { unit, files });
      for (const at of [border - size, border - 4096, border - 2048, border - 16, border]) {
        const before = bench.memory.bytes(at, size).fill(0xaa).slice();
        write(at);
        assert.equal(nic.refusals.counts.context, 0, nic.refusals.last);
        assert.notDeepEqual(bench.memory.bytes(at, size).slice(), before, "initialised");
        const image = new ArrayBuffer(size);
        new Uint8Array(image).fill(0xaa);
        device.initialise("rx", image, 256);
        assert.deepEqual(bench.memory.bytes(at, size).slice(), new Uint8Array(image), `at ${at}`);
      }
    }
    bench.close();
  });
}

test("large packet arrives whole when its buffers, headers and payload are split", () => {
  const bench = new SplitBench(sringGso, "helperfree", { bufferSize: 256 });
  bench.driver.open();
  const frame = new Uint8Array(3000);
  for (let i = 0; i < frame.length; i++) frame[i] = i % 251;
  const header = Uint8Array.from([NEEDS_CSUM, GSO_TCP_V4, 54, 0, 0xf4, 1, 34, 0, 16, 0]);
  for (let at = 1; at < 256; at += FULL ? 1 : 17) {
    bench.cut([...bench.inBuffers(at), ...bench.inBuffers(255)]);
    bench.ports[0].sent.length = 0;
    bench.driver.send(0, frame, header);
    bench.ports[0].incoming.push(frame);
    bench.settle();
    assert.deepEqual(bench.ports[0].sent, [frame], `sent, split at ${at}`);
    const received = bench.take().map((bytes) => Uint8Array.from(bytes));
    assert.deepEqual(received, [frame], `received, split at ${at}`);
    bench.driver.clean(0);
    bench.driver.refill(0);
  }
  bench.close();
});

test("blobs and page lists are read whole when they are split at any byte", () => {
  const bench = new SplitBench(sring);
  bench.driver.open();
  const { nic } = bench;
  const { address, pages, size } = nic.queues[0].current!.context.record;
  for (let at = 1; at < 8 * pages.length; at++) {
    bench.cut([address + at], { files: true });
    writeBar(nic, BAR_REGISTERS, REG.QUEUE_SELECT, 4, 0);
    setContext(nic, address, mapPageList);
    const { record } = nic.queues[0].current!.context;
    assert.deepEqual(record, { kind: "pages", address, pages, size });
  }
  const to = bench.memory.allocate(nic.running.blob(nic.form).length);
  for (let at = 1; at < nic.running.blob(nic.form).length; at += FULL ? 1 : 7) {
    bench.memory.bytes(to, nic.running.blob(nic.form).length).fill(0);
    bench.cut([to + at]);
    deliverBlob(nic, to);
    assert.deepEqual(
      bench.memory.bytes(to, nic.running.blob(nic.form).length).slice(),
      nic.running.blob(nic.form),
      `split at ${at}`,
    );
  }
  const refused = nic.refusals.counts.blob;
  bench.memory.bytes(to, nic.running.blob(nic.form).length).fill(0);
  bench.cut([to + 100, to + 101], { hole: 1 });
  deliverBlob(nic, to);
  assert.equal(nic.refusals.counts.blob, refused + 1);
  assert.match(nic.refusals.last, /the memory at 0x[0-9a-f]+ is not shared/);
  assert.ok(
    bench.memory.bytes(to, nic.running.blob(nic.form).length).every((byte) => byte === 0),
    "nothing written",
  );
  bench.close();
});

describe("memory that is removed while a NIC runs", () => {
  /** Removes the guest's first context with its RAM. */
  const unplugged = (): SplitBench => {
    const bench = new SplitBench(sring);
    bench.driver.open();
    bench.expectTraffic(1, "before");
    const [page] = bench.contextPages();
    bench.cut([page, page + CONTEXT_PAGE], { hole: 1 });
    assert.equal(bench.local.pairs[0].rx.ring, null, "its ring is paused");
    assert.notEqual(bench.local.pairs[0].tx.ring, null, "the other one is not");
    return bench;
  };

  test("NIC moves packets when contexts are registered elsewhere after a reset", () => {
    const bench = unplugged();
    const { abilities } = bench.nic.state;
    bench.nic.reset();
    writeBar(bench.nic, BAR_REGISTERS, REG.EXT_ACK, 4, abilities);
    bench.newDriver();
    bench.driver.open();
    bench.expectTraffic(2, "after the reset");
    bench.close();
  });

  test("NIC moves packets when contexts are registered elsewhere without a reset", () => {
    const bench = unplugged();
    bench.newDriver();
    bench.driver.open();
    bench.expectTraffic(3, "registered anew");
    bench.close();
  });

  test("ring resumes at its position when the same memory is back", () => {
    const bench = unplugged();
    bench.ports[0].incoming.push(frameOf(7));
    bench.settle();
    bench.cut([]);
    bench.settle();
    assert.deepEqual(bench.take().map(numberOf), [7]);
    bench.close();
  });

  test("ring resumes when the guest reopened it while its memory was away", () => {
    for (const device of FORMATS) {
      const bench = new SplitBench(device);
      const { driver } = bench;
      driver.open();
      for (let n = 0; n < 5; n++) bench.expectTraffic(n, `${device.name}, before`);
      bench.cut(
        bench.contextPages().flatMap((page) => [page, page + CONTEXT_PAGE]),
        { hole: 1 },
      );
      driver.disable();
      driver.clean(0);
      bench.take();
      for (const ring of [driver.rx[0], driver.tx[0]]) ring.reclaim();
      driver.refill(0);
      driver.enable();
      bench.cut([]);
      for (let n = 0; n < 40; n++) bench.expectTraffic(n, `${device.name}, after`);
      bench.close();
    }
  });

  test("ring stays stopped when other memory replaces its context", () => {
    const bench = unplugged();
    const [page] = bench.contextPages();
    bench.cut([page, page + CONTEXT_PAGE], { files: true });
    assert.equal(bench.local.pairs[0].rx.ring, null);
    bench.cut([]);
    assert.notEqual(bench.local.pairs[0].rx.ring, null);
    bench.close();
  });
});

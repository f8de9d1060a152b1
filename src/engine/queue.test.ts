/** A queue's rings: attached and detached, replaced, drained; without NIC, driver or frontend. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { frameOf, numberOf, TestPort } from "../../test/support/guest.ts";
import { pipe } from "../../test/support/os.ts";
import { PRIVATE_OFFSET } from "../abi/index.ts";
import { sring } from "../devices/sring/host.ts";
import { SRING, SRING_DESC } from "../devices/sring/layout.ts";
import { LocalMemory } from "../guest/memory.ts";
import { PACKETS } from "../memory/counters.ts";
import { close } from "../os/fd.ts";
import { viewsMade } from "../os/memory.ts";
import { type MappedContext, mapContiguous } from "./contexts.ts";
import { drainTransmit, unsentPackets } from "./drain.ts";
import { QueuePair } from "./pair.ts";
import { prepareQueue, saveQueue } from "./persist.ts";

const BUFS = 16;
const PAGE = 4096;

/** A pair with rings of sring, which the test publishes to as a guest's program would. */
class RingBench {
  readonly memory = new LocalMemory(1 << 20);
  readonly port: TestPort;
  readonly pair: QueuePair;
  #published = 0;
  #address = 0;
  #buffers = this.memory.allocate(64 * PAGE, PAGE);

  constructor(port = new TestPort()) {
    this.port = port;
    this.pair = new QueuePair({ port, rxVector: 0, txVector: 1, fire: () => {} });
    this.pair.rx.configure(sring, BUFS);
    this.pair.tx.configure(sring, BUFS);
  }

  get settings() {
    return { memory: this.memory, features: 0, mtu: 1500 };
  }

  /** Registers a new context for the transmit queue; `publish` writes to it from here on. */
  register(): void {
    this.pair.tx.register(this.#map());
  }

  /** Registers another context beside the current one, and moves on to it. */
  replace(): void {
    this.pair.tx.registerNext(this.#map(), sring, BUFS);
    this.pair.cutTx(0, this.settings);
  }

  #map(): MappedContext {
    const { contextSize } = this.pair.tx;
    this.#address = this.memory.allocate(contextSize, PAGE);
    this.#published = 0;
    const context = mapContiguous(this.memory, this.#address, contextSize);
    assert.ok(typeof context === "object", String(context));
    return context as MappedContext;
  }

  open(): void {
    this.register();
    this.pair.tx.enable(this.settings);
  }

  publish(...numbers: number[]): void {
    const bytes = this.memory.bytes(this.#address, this.pair.tx.contextSize);
    const view = new DataView(bytes.buffer, bytes.byteOffset + PRIVATE_OFFSET);
    for (const number of numbers) {
      const frame = frameOf(number);
      const buffer = this.#buffers;
      this.#buffers += PAGE;
      this.memory.bytes(buffer, frame.length).set(frame);
      const slot = SRING.size + (this.#published++ % BUFS) * SRING_DESC.size;
      view.setBigUint64(slot + SRING_DESC.paddr.offset, BigInt(buffer), true);
      view.setUint32(slot + SRING_DESC.len.offset, frame.length, true);
    }
    view.setUint32(SRING.prod.offset, this.#published, true);
  }

  /** Transmits until nothing moves. @returns numbers of all frames that the port got */
  transmitted(): number[] {
    while (this.pair.drainTx() > 0);
    return this.port.sent.map(numberOf);
  }

  close(): void {
    this.pair.tx.forget();
    this.memory.close();
  }
}

function withBench(body: (bench: RingBench) => void, port?: TestPort): void {
  const bench = new RingBench(port);
  try {
    body(bench);
  } finally {
    bench.close();
  }
}

test("a queue keeps its position when its ring is detached and attached again", () => {
  withBench((bench) => {
    bench.open();
    bench.publish(0);
    assert.deepEqual(bench.transmitted(), [0]);
    const { tx } = bench.pair;
    tx.detach();
    bench.publish(1);
    assert.deepEqual(bench.transmitted(), [0]);
    assert.equal(tx.current?.position, 1);
    assert.equal(tx.fill, null, "it is not served");
    tx.attach(bench.settings);
    assert.equal(tx.fill, 1);
    assert.deepEqual(bench.transmitted(), [0, 1]);
  });
});

test("a queue is served only when it is enabled, registered and allowed to use memory", () => {
  withBench((bench) => {
    const { tx } = bench.pair;
    tx.enable(bench.settings);
    assert.equal(tx.ring, null, "not registered");
    bench.register();
    assert.equal(tx.ring, null, "registering attaches nothing");
    tx.attach(null);
    assert.equal(tx.ring, null, "no memory access");
    tx.attach(bench.settings);
    assert.notEqual(tx.ring, null);
    const { ring } = tx;
    tx.attach(bench.settings);
    assert.equal(tx.ring, ring, "attached once");
    tx.disable();
    tx.attach(bench.settings);
    assert.equal(tx.ring, null, "not enabled");
  });
});

test("a queue serves no ring when its context was replaced or unregistered", () => {
  withBench((bench) => {
    const { tx } = bench.pair;
    bench.open();
    bench.register();
    assert.equal(tx.ring, null, "the old context is released");
    tx.attach(bench.settings);
    bench.publish(0);
    assert.deepEqual(bench.transmitted(), [0]);
    tx.forget();
    assert.equal(tx.ring, null);
    assert.deepEqual(bench.transmitted(), [0]);
  });
});

test("a queue sends all of its retiring ring before its new ring when a ring is replaced", () => {
  withBench((bench) => {
    const { tx } = bench.pair;
    bench.open();
    bench.publish(0, 1, 2, 3);
    bench.port.room = 2;
    assert.deepEqual(bench.transmitted(), [0, 1]);
    bench.replace();
    bench.publish(4, 5);
    assert.equal(tx.fill, 4, "of both rings");
    assert.equal(tx.dump().length, 2);
    assert.deepEqual(bench.transmitted(), [0, 1], "the port blocks");
    bench.port.room = 3;
    bench.pair.portWritable();
    assert.deepEqual(bench.transmitted(), [0, 1, 2, 3, 4]);
    bench.port.room = 1;
    bench.pair.portWritable();
    assert.deepEqual(bench.transmitted(), [0, 1, 2, 3, 4, 5]);
    tx.retired();
    assert.equal(tx.retiring, null);
    assert.equal(tx.counters[PACKETS], 6);
  });
});

test("a drain sends both rings and leaves none when the port takes everything", () => {
  withBench((bench) => {
    bench.open();
    bench.publish(0, 1);
    bench.replace();
    bench.publish(2, 3);
    drainTransmit(bench.pair, 0);
    assert.deepEqual(bench.port.sent.map(numberOf), [0, 1, 2, 3]);
    assert.equal(unsentPackets(bench.pair), 0);
    bench.pair.tx.disable();
    assert.equal(bench.pair.tx.retiring, null);
  });
});

test("both rings pause when the guest's memory map lacks them, and resume when it has them", () => {
  withBench((bench) => {
    const { tx } = bench.pair;
    bench.open();
    bench.publish(0);
    bench.replace();
    bench.publish(1);
    bench.memory.setVisible(false);
    assert.equal(tx.memoryChanged(bench.memory, bench.settings), true);
    assert.equal(tx.memoryChanged(bench.memory, bench.settings), false, "reported once");
    assert.deepEqual(bench.transmitted(), []);
    bench.memory.setVisible(true);
    assert.equal(tx.memoryChanged(bench.memory, bench.settings), false);
    assert.deepEqual(bench.transmitted(), [0, 1]);
  });
});

test("a queue sends nothing of its new ring when the guest's memory map lacks its retiring ring", () => {
  withBench((bench) => {
    const { tx } = bench.pair;
    bench.open();
    bench.publish(0);
    bench.replace();
    bench.publish(1);
    // Only the retiring context is absent.
    tx.retiring!.detach();
    tx.retiring!.absent = true;
    assert.deepEqual(bench.transmitted(), []);
    tx.memoryChanged(bench.memory, bench.settings);
    assert.deepEqual(bench.transmitted(), [0, 1]);
  });
});

/** A port on one end of a pipe that has no room at first. */
class BlockingPort extends TestPort {
  override readonly fd: number;

  constructor(fd: number) {
    super();
    this.fd = fd;
    this.room = 0;
  }
}

test("a drain waits for a blocked port only until its deadline, and counts what is left", () => {
  // A reading end never becomes writable.
  const [reading, writing] = pipe();
  try {
    withBench((bench) => {
      bench.open();
      bench.publish(0, 1, 2);
      let began = performance.now();
      drainTransmit(bench.pair, 0);
      const atOnce = performance.now() - began;
      began = performance.now();
      drainTransmit(bench.pair, 100);
      const waited = performance.now() - began;
      assert.ok(waited >= 99 && waited > atOnce, `${waited} ms, and ${atOnce} ms without deadline`);
      assert.equal(unsentPackets(bench.pair), 3);
    }, new BlockingPort(reading));
  } finally {
    for (const fd of [reading, writing]) close(fd);
  }
});

test("a drain goes on when a blocked port becomes writable before its deadline", () => {
  const [reading, writing] = pipe();
  class RecoveringPort extends BlockingPort {
    override send(...args: Parameters<TestPort["send"]>): number {
      const sent = super.send(...args);
      this.room = 2;
      return sent;
    }
  }
  try {
    withBench((bench) => {
      bench.open();
      bench.publish(0, 1, 2);
      drainTransmit(bench.pair, 60_000);
      assert.deepEqual(bench.port.sent.map(numberOf), [0, 1, 2]);
      assert.equal(unsentPackets(bench.pair), 0);
    }, new RecoveringPort(writing));
  } finally {
    for (const fd of [reading, writing]) close(fd);
  }
});

test("a queue sends both of its rings when it is restored in the middle of a replacement", () => {
  withBench((bench) => {
    const { tx } = bench.pair;
    bench.open();
    bench.publish(0, 1, 2, 3);
    bench.port.room = 2;
    assert.deepEqual(bench.transmitted(), [0, 1]);
    bench.replace();
    bench.publish(4, 5);
    const record: unknown = JSON.parse(JSON.stringify(saveQueue(tx)));
    const next = new QueuePair({ port: bench.port, rxVector: 0, txVector: 1, fire: () => {} });
    const surroundings = { memory: bench.memory, formats: [sring] };
    prepareQueue("tx0", record, next.tx, surroundings).commit();
    tx.forget();
    assert.deepEqual(JSON.parse(JSON.stringify(saveQueue(next.tx))), record);
    next.tx.attach(bench.settings);
    bench.port.room = 100;
    while (next.drainTx() > 0);
    assert.deepEqual(bench.port.sent.map(numberOf), [0, 1, 2, 3, 4, 5]);
    assert.equal(next.tx.counters[PACKETS], 6);
    next.tx.forget();
  });
});

test("nothing stays mapped when a queue's second ring is refused", () => {
  withBench((bench) => {
    const { tx } = bench.pair;
    bench.open();
    bench.replace();
    const record = saveQueue(tx);
    const retiring = { ...record.retiring, format: "other" };
    const next = new QueuePair({ port: bench.port, rxVector: 0, txVector: 1, fire: () => {} });
    const surroundings = { memory: bench.memory, formats: [sring] };
    const views = viewsMade();
    for (let n = 0; n < 20; n++) {
      assert.throws(() => prepareQueue("tx0", { ...record, retiring }, next.tx, surroundings), {
        code: "RECORD",
        message: 'tx0.retiring.format: "other" is not served here: use sring',
      });
    }
    assert.ok(viewsMade() - views <= 1, "windows of refused records are used again");
    assert.equal(next.tx.registered, false);
  });
});

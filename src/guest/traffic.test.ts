import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { Bench, frameOf, numberOf } from "../../test/support/guest.ts";
import { ABILITY, BAR_REGISTERS, PRIVATE_OFFSET, REG, STATUS } from "../abi/index.ts";
import {
  BATCHES,
  DROP_BAD_ADDRESS,
  DROP_BAD_LENGTH,
  DROP_PORT,
  INTERRUPTS,
  KICKS,
  NO_BUFFERS,
  PACKETS,
  RING_ERRORS,
} from "../memory/counters.ts";

/** Literal offsets of sring's private area: an oracle independent of the layout code. */
const PROD = 2096;
const CONS = 2096 + 128;
const KICK_ENABLED = 2096 + 132;
const CLEAR = 2096 + 384;
const DESCRIPTORS = 2096 + 512;

const words = (bytes: Uint8Array) => new DataView(bytes.buffer, bytes.byteOffset, bytes.length);

/** Starts the queue's indices at `index`, as if it had run for a while. */
function startAt(bench: Bench, index: number): void {
  bench.driver.disable();
  for (let queue = 0; queue < 2; queue++) {
    const view = words(bench.driver.contextOf(queue));
    const outstanding = view.getUint32(PROD, true) - view.getUint32(CONS, true);
    for (const at of [CONS, CLEAR]) view.setUint32(at, index >>> 0, true);
    view.setUint32(PROD, (index + outstanding) >>> 0, true);
    bench.nic.queues[queue].current!.position = index >>> 0;
  }
  bench.driver.enable();
}

for (const form of ["helperfree", "v1"] as const) {
  describe(`sring with ${form} programs`, () => {
    test("packets are sent in order and unchanged", () => {
      const bench = new Bench({ form });
      bench.driver.open();
      for (let n = 0; n < 1000; n++) {
        if (!bench.driver.send(0, frameOf(n))) {
          bench.settle();
          assert.ok(bench.driver.send(0, frameOf(n)));
        }
      }
      bench.settle();
      const { sent } = bench.ports[0];
      assert.equal(sent.length, 1000);
      sent.forEach((frame, n) => {
        assert.deepEqual(frame, frameOf(n));
      });
      assert.equal(bench.local.pairs[0].tx.counters[PACKETS], 1000);
      bench.close();
    });

    test("packets are received in order and unchanged", () => {
      const bench = new Bench({ form });
      bench.driver.open();
      for (let n = 0; n < 1000; n++) bench.ports[0].incoming.push(frameOf(n));
      const got: Uint8Array[] = [];
      while (got.length < 1000 && bench.settle() > 0) got.push(...bench.take());
      assert.equal(got.length, 1000);
      got.forEach((frame, n) => {
        assert.deepEqual(frame, frameOf(n));
      });
      assert.equal(bench.local.pairs[0].rx.counters[PACKETS], 1000);
      bench.close();
    });

    for (const bufs of [16, 256, 8192]) {
      test(`indices wrap at 2^32 both ways with ${bufs} buffers`, () => {
        const bench = new Bench({ form, config: { rxBufs: bufs, txBufs: bufs }, mib: 64 });
        bench.driver.open();
        // Receive buffers are published already: their slots must not change.
        bench.driver.close();
        bench.driver.enable();
        startAt(bench, -5);
        bench.driver.refill(0);
        for (let n = 0; n < 40; n++) {
          bench.driver.send(0, frameOf(n));
          bench.ports[0].incoming.push(frameOf(1000 + n));
          bench.settle();
          assert.deepEqual(bench.take().map(numberOf), [1000 + n]);
        }
        assert.deepEqual(bench.ports[0].sent.map(numberOf), [...Array(40).keys()]);
        assert.equal(words(bench.driver.contextOf(1)).getUint32(CONS, true), 35);
        bench.close();
      });
    }

    test("send returns false when the ring is full, and succeeds once slots are free", () => {
      const bench = new Bench({ form, config: { txBufs: 16 } });
      bench.driver.open();
      for (let n = 0; n < 16; n++) assert.ok(bench.driver.send(0, frameOf(n)));
      assert.equal(bench.driver.send(0, frameOf(16)), false);
      assert.equal(bench.driver.counters.busy, 1);
      bench.settle();
      assert.ok(bench.driver.send(0, frameOf(16)));
      bench.settle();
      assert.equal(bench.ports[0].sent.length, 17);
      bench.close();
    });

    test("unsent buffers are reclaimed when the device is disabled, and a restart begins empty", () => {
      // Three buffers of 16 or odd batches of 64: the number of reclaim batches must not matter.
      for (const bufs of [16, 64, 128, 256]) {
        const bench = new Bench({ form, config: { rxBufs: bufs, txBufs: bufs } });
        bench.driver.open();
        bench.ports[0].room = 2;
        for (let n = 0; n < 5; n++) bench.driver.send(0, frameOf(n));
        const { tx, rx } = bench.driver.close();
        assert.equal(tx, 3, `${bufs}: two were sent while stopping`);
        assert.equal(rx, bufs);
        bench.ports[0].room = 100;
        // Enables the same contexts without registering them again.
        bench.driver.enable();
        assert.equal(bench.settle(), 0, `${bufs}: nothing is left in the rings`);
        bench.driver.refill(0);
        bench.ports[0].incoming.push(frameOf(77));
        bench.driver.send(0, frameOf(88));
        bench.settle();
        assert.deepEqual(bench.take().map(numberOf), [77]);
        assert.deepEqual(bench.ports[0].sent.map(numberOf), [0, 1, 88]);
        bench.close();
      }
    });
  });
}

describe("notifications", () => {
  test("guest kicks once while the host sleeps, and never while it is awake", () => {
    const bench = new Bench();
    bench.driver.open();
    const [pair] = bench.local.pairs;
    bench.settle();
    pair.disarmKicks();
    const kicks = () => pair.tx.counters[KICKS];
    const before = kicks();
    for (let n = 0; n < 50; n++) bench.driver.send(0, frameOf(n));
    assert.equal(kicks(), before, "awake: none");
    bench.settle();
    assert.equal(pair.armKicks(), false, "nothing to do: it may sleep");
    for (let n = 0; n < 50; n++) bench.driver.send(0, frameOf(n));
    assert.equal(kicks(), before + 1, "asleep: one, not fifty");
    assert.equal(bench.settle(), 50);
    bench.close();
  });

  test("host sees work when it is published before the host's second poll", () => {
    const bench = new Bench();
    bench.driver.open();
    bench.settle();
    bench.driver.send(0, frameOf(1));
    assert.equal(bench.local.pairs[0].armKicks(), true);
    bench.close();
  });

  /**
   * Interleaves host and guest, step by step, in every order: publish, check the kick request
   * (guest; one program run, which is atomic here); arm, poll again, sleep (host). A wake-up is
   * lost if the host sleeps, the ring has work, and no doorbell was written since it armed.
   */
  test("no wake-up is lost in any interleaving of three sends and two sleeps", () => {
    const orders = (sends: number, sleeps: number): string[] =>
      sends === 0 && sleeps === 0
        ? [""]
        : [
            ...(sends > 0 ? orders(sends - 1, sleeps).map((rest) => `s${rest}`) : []),
            ...(sleeps > 0 ? orders(sends, sleeps - 1).map((rest) => `z${rest}`) : []),
          ];
    for (const order of orders(3, 2)) {
      const bench = new Bench();
      bench.driver.open();
      bench.settle();
      const [pair] = bench.local.pairs;
      pair.disarmKicks();
      let asleep = false;
      let sent = 0;
      for (const step of order) {
        if (step === "s") {
          const rung = pair.tx.counters[KICKS];
          bench.driver.send(0, frameOf(sent++));
          if (pair.tx.counters[KICKS] > rung && asleep) {
            asleep = false;
            pair.disarmKicks();
            bench.settle();
          }
        } else if (!asleep) {
          if (pair.armKicks()) {
            pair.disarmKicks();
            bench.settle();
          } else asleep = true;
        }
        const waiting = bench.ports[0].sent.length < sent;
        assert.ok(!(asleep && waiting), `${order}: asleep with work`);
      }
      bench.close();
    }
  });

  test("receive interrupts come once per batch when armed, and never when disarmed", () => {
    const bench = new Bench();
    bench.driver.open();
    bench.settle();
    bench.vectors.length = 0;
    const [pair] = bench.local.pairs;
    const before = pair.rx.counters[INTERRUPTS];
    assert.equal(bench.driver.rx[0].arm(1), false);
    for (let n = 0; n < 40; n++) bench.ports[0].incoming.push(frameOf(n));
    bench.settle();
    assert.deepEqual(bench.vectors, [0]);
    assert.equal(pair.rx.counters[INTERRUPTS], before + 1);
    bench.driver.rx[0].arm(0);
    bench.take();
    for (let n = 0; n < 40; n++) bench.ports[0].incoming.push(frameOf(n));
    bench.settle();
    assert.deepEqual(bench.vectors, [0]);
    assert.equal(bench.driver.rx[0].arm(1), true, "40 are there already: no interrupt will come");
    bench.close();
  });

  test("transmit interrupt comes once when the armed slot completes", () => {
    const bench = new Bench();
    bench.driver.open();
    bench.driver.send(0, frameOf(0));
    bench.settle();
    bench.driver.clean(0);
    bench.vectors.length = 0;
    assert.equal(bench.driver.tx[0].arm(3), false);
    for (let n = 0; n < 2; n++) bench.driver.send(0, frameOf(n));
    bench.settle();
    assert.deepEqual(bench.vectors, []);
    for (let n = 0; n < 2; n++) bench.driver.send(0, frameOf(n));
    bench.settle();
    assert.deepEqual(bench.vectors, [1]);
    for (let n = 0; n < 4; n++) bench.driver.send(0, frameOf(n));
    bench.settle();
    assert.deepEqual(bench.vectors, [1]);
    bench.close();
  });
});

describe("back-pressure", () => {
  test("packets stay in the ring, in order, when the port blocks, and the loop does not spin", () => {
    const bench = new Bench();
    bench.driver.open();
    bench.ports[0].room = 3;
    for (let n = 0; n < 10; n++) bench.driver.send(0, frameOf(n));
    assert.equal(bench.settle(), 3);
    const [pair] = bench.local.pairs;
    assert.equal(bench.local.turn(), 0, "blocked: not even tried");
    assert.equal(pair.armKicks(), false, "nor is it work");
    bench.ports[0].room = 100;
    assert.equal(bench.local.turn(), 0, "until the port says so");
    pair.portWritable();
    assert.equal(bench.settle(), 7);
    assert.deepEqual(bench.ports[0].sent.map(numberOf), [...Array(10).keys()]);
    assert.equal(pair.tx.counters[PACKETS], 10);
    bench.close();
  });

  test("packet is dropped and counted, and the next ones pass, when the port refuses it", () => {
    const bench = new Bench();
    bench.driver.open();
    bench.ports[0].refuses = (frame) => numberOf(frame) === 2;
    for (let n = 0; n < 4; n++) bench.driver.send(0, frameOf(n));
    bench.settle();
    assert.deepEqual(bench.ports[0].sent.map(numberOf), [0, 1, 3]);
    assert.equal(bench.local.pairs[0].tx.counters[DROP_PORT], 1);
    assert.equal(bench.driver.clean(0), 4, "all four slots come back");
    bench.close();
  });

  test("packets wait in the port when receive buffers run out, which is counted once", () => {
    const bench = new Bench({ config: { rxBufs: 16 } });
    bench.driver.open();
    for (let n = 0; n < 20; n++) bench.ports[0].incoming.push(frameOf(n));
    assert.equal(bench.settle(), 16);
    bench.local.turn();
    bench.local.turn();
    const [pair] = bench.local.pairs;
    assert.equal(pair.rx.counters[NO_BUFFERS], 1);
    assert.equal(pair.rxStarved, true);
    assert.equal(bench.take().length, 16);
    assert.equal(bench.settle(), 4);
    bench.close();
  });
});

describe("two queue pairs", () => {
  test("each queue pair moves its packets, and a misbehaving guest loses only the queue concerned", () => {
    const bench = new Bench({ pairs: 2 });
    bench.driver.open();
    bench.settle();
    words(bench.driver.contextOf(2)).setUint32(PROD, 5000, true);
    bench.driver.send(1, frameOf(1));
    bench.ports[0].incoming.push(frameOf(2));
    bench.ports[1].incoming.push(frameOf(3));
    bench.settle();
    const [first, second] = bench.local.pairs;
    assert.equal(first.tx?.broken, true);
    assert.equal(first.tx.counters[RING_ERRORS], 1);
    assert.equal(second.tx.counters[RING_ERRORS], 0);
    assert.deepEqual(bench.ports[1].sent.map(numberOf), [1]);
    assert.deepEqual(bench.take(0).map(numberOf), [2]);
    assert.deepEqual(bench.take(1).map(numberOf), [3]);
    bench.close();
  });
});

describe("bad descriptors", () => {
  /** Publishes `count` frames, then corrupts a field of the n-th descriptor. */
  function spoil(bench: Bench, queue: number, n: number, field: number, value: number): void {
    words(bench.driver.contextOf(queue)).setUint32(DESCRIPTORS + 24 * n + field, value, true);
  }

  test("bad descriptor is skipped and counted once at any position in the batch", () => {
    for (const bad of [0, 1, 3]) {
      const bench = new Bench();
      bench.driver.open();
      bench.settle();
      for (let n = 0; n < 4; n++) bench.driver.send(0, frameOf(n));
      spoil(bench, 1, bad, 12, 0xffffffff);
      bench.settle();
      const kept = [0, 1, 2, 3].filter((n) => n !== bad);
      assert.deepEqual(bench.ports[0].sent.map(numberOf), kept);
      assert.equal(bench.local.pairs[0].tx.counters[DROP_BAD_ADDRESS], 1, `at ${bad}`);
      assert.equal(bench.driver.clean(0), 4);
      bench.close();
    }
  });

  test("batch of only bad descriptors is completed, so that they are not read again", () => {
    const bench = new Bench();
    bench.driver.open();
    bench.settle();
    for (let n = 0; n < 8; n++) bench.driver.send(0, frameOf(n));
    for (let n = 0; n < 8; n++) spoil(bench, 1, n, 16, n % 2 === 0 ? 0 : 0x7fffffff);
    bench.settle();
    bench.settle();
    const counters = bench.local.pairs[0].tx.counters;
    assert.equal(counters[DROP_BAD_LENGTH], 8);
    assert.equal(counters[BATCHES], 0);
    assert.equal(bench.driver.clean(0), 8);
    bench.close();
  });

  test("bad receive buffer is returned empty, and the packet goes to the next", () => {
    const bench = new Bench({ config: { rxBufs: 16 } });
    bench.driver.open();
    spoil(bench, 0, 0, 12, 0x12345678);
    spoil(bench, 0, 2, 16, 3);
    bench.ports[0].incoming.push(frameOf(1), frameOf(2));
    bench.settle();
    const counters = bench.local.pairs[0].rx.counters;
    assert.deepEqual(bench.take().map(numberOf), [1, 2]);
    assert.equal(counters[DROP_BAD_ADDRESS], 1);
    assert.equal(counters[DROP_BAD_LENGTH], 1);
    assert.equal(counters[PACKETS], 2);
    bench.close();
  });

  test("addresses are refused when they wrap or end past the memory", () => {
    const bench = new Bench();
    bench.driver.open();
    bench.settle();
    const ends = [
      [0xfffffff0, 0xffffffff],
      [0x100000 + (16 << 20) - 30, 0],
      [0xfffff, 0],
    ];
    for (const [low, high] of ends) {
      bench.driver.send(0, frameOf(0));
      const slot = words(bench.driver.contextOf(1)).getUint32(PROD, true) - 1;
      spoil(bench, 1, slot, 8, low);
      spoil(bench, 1, slot, 12, high);
      bench.settle();
    }
    assert.equal(bench.local.pairs[0].tx.counters[DROP_BAD_ADDRESS], ends.length);
    assert.equal(bench.ports[0].sent.length, 0);
    bench.close();
  });
});

describe("host state", () => {
  test("host ignores its words when the guest overwrites them", () => {
    const bench = new Bench();
    bench.driver.open();
    bench.settle();
    const view = words(bench.driver.contextOf(1));
    view.setUint32(2096 + 256, 0xffffff, true);
    view.setUint32(CONS, 12345, true);
    view.setUint32(KICK_ENABLED, 0xdeadbeef, true);
    for (let n = 0; n < 3; n++) bench.driver.tx[0].publish(1, 60);
    bench.settle();
    assert.equal(bench.ports[0].sent.length, 3);
    assert.equal(view.getUint32(CONS, true), 3);
    bench.close();
  });

  test("state is plain data that survives JSON", () => {
    const bench = new Bench({ pairs: 2 });
    bench.driver.open();
    assert.deepEqual(JSON.parse(JSON.stringify(bench.nic.state)), bench.nic.state);
    bench.close();
  });

  test("queues are paused while the memory map lacks their contexts", () => {
    const bench = new Bench();
    bench.driver.open();
    bench.settle();
    bench.driver.send(0, frameOf(1));
    bench.memory.setVisible(false);
    bench.nic.memoryChanged();
    assert.equal(bench.settle(), 0);
    bench.memory.setVisible(true);
    bench.nic.memoryChanged();
    bench.settle();
    assert.deepEqual(bench.ports[0].sent.map(numberOf), [1]);
    assert.equal(bench.local.pairs[0].tx.counters[DROP_BAD_ADDRESS], 0);
    bench.close();
  });

  test("queues pause while bus mastering is off, and continue when it is on again", () => {
    const bench = new Bench();
    bench.driver.open();
    bench.nic.busMasterChanged(false);
    bench.driver.send(0, frameOf(1));
    bench.ports[0].incoming.push(frameOf(2));
    const before = bench.driver.contextOf(0).slice();
    assert.equal(bench.settle(), 0);
    assert.deepEqual(bench.driver.contextOf(0), before, "not a byte of the context changed");
    bench.nic.busMasterChanged(true);
    bench.settle();
    assert.deepEqual(bench.ports[0].sent.map(numberOf), [1]);
    assert.deepEqual(bench.take().map(numberOf), [2]);
    bench.close();
  });
});

describe("registers", () => {
  const read = (bench: Bench, register: number) => bench.local.read(BAR_REGISTERS, register);
  const write = (bench: Bench, register: number, value: number) =>
    bench.local.write(BAR_REGISTERS, register, value);

  test("enable is refused, visible in STATUS and counted when contexts are missing", () => {
    const bench = new Bench();
    write(bench, REG.CTRL, 3);
    assert.equal(read(bench, REG.STATUS), 0);
    assert.equal(bench.nic.refusals.counts.enable, 2);
    bench.close();
  });

  test("queue has no context when its address is not mapped", () => {
    const bench = new Bench();
    write(bench, REG.QUEUE_SELECT, 0);
    write(bench, REG.CTX_PADDR_LO, 0xdead0000);
    write(bench, REG.CTX_PADDR_HI, 7);
    assert.equal(bench.nic.refusals.counts.context, 1);
    assert.match(bench.nic.refusals.last, /context of queue 0 at 0x7dead0000 /);
    assert.equal(read(bench, REG.STATUS) & STATUS.LINK, 0);
    bench.close();
  });

  test("features are refused as a whole when they exceed the offer or the NIC is enabled", () => {
    const bench = new Bench();
    write(bench, REG.FEATURES, 2);
    bench.driver.open();
    write(bench, REG.FEATURES, 0);
    assert.equal(bench.nic.refusals.counts.features, 2);
    assert.equal(read(bench, REG.FEATURES), 0);
    bench.close();
  });

  test("private area is initialised when the write that registers it returns", () => {
    const bench = new Bench();
    bench.driver.register();
    const context = words(bench.driver.contextOf(1));
    assert.equal(context.getUint32(PRIVATE_OFFSET + 256, true), 255);
    assert.equal(context.getUint32(PRIVATE_OFFSET + 132, true), 1);
    bench.close();
  });

  test("dump reads four characters at a time and is frozen", () => {
    const bench = new Bench();
    bench.driver.open();
    bench.settle();
    write(bench, REG.CTRL, 32);
    let text = "";
    for (let at = 0; at < read(bench, REG.DUMP_LEN); at += 4) {
      write(bench, REG.DUMP_OFS, at);
      const word = read(bench, REG.DUMP_INPUT);
      text += String.fromCharCode(...[0, 8, 16, 24].map((shift) => (word >>> shift) & 255));
    }
    assert.match(
      text,
      /^sring\.rxq cl 0 co 0 pr 256 kick \d intr 1\nsring\.txq cl 0 .* intr_at 0\n\0+$/,
    );
    bench.close();
  });

  test("abilities outside the offer cannot be acknowledged", () => {
    const bench = new Bench();
    assert.equal(read(bench, REG.EXT_OFFER) & ABILITY.OVERLAP, ABILITY.OVERLAP);
    const before = read(bench, REG.EXT_ACK);
    write(bench, REG.EXT_ACK, 0xffffffff);
    assert.equal(read(bench, REG.EXT_ACK), before);
    bench.close();
  });

  test("reset clears contexts, abilities and features, and leaves the guest's memory unchanged", () => {
    const bench = new Bench();
    bench.driver.open();
    bench.settle();
    bench.nic.reset();
    const before = bench.driver.contextOf(0).slice();
    bench.ports[0].incoming.push(frameOf(1));
    assert.equal(bench.settle(), 0);
    assert.deepEqual(bench.driver.contextOf(0), before);
    assert.equal(read(bench, REG.STATUS), 0);
    assert.equal(read(bench, REG.EXT_ACK), 0);
    bench.close();
  });
});

/** Work that keeps a loop awake, exchanged ports, overdue interrupts. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { Bench, frameOf } from "../../test/support/guest.ts";
import type { RingFormat } from "../devices/format.ts";
import { FORMATS } from "../devices/registry.ts";
import { sring } from "../devices/sring/host.ts";
import { DROP_PORT, INTERRUPTS } from "../memory/counters.ts";
import { LoopbackPort } from "../net/loopback.ts";
import { SourcePort } from "../net/synthetic.ts";
import { Loop } from "./loop.ts";

function opened(device: RingFormat = sring): Bench {
  const bench = new Bench({ device, config: { rxBufs: 16 } });
  bench.driver.open();
  bench.settle();
  return bench;
}

test("loop stays awake when a port without descriptor has packets and the guest buffers", () => {
  const bench = opened();
  const [pair] = bench.local.pairs;
  const [port] = bench.ports;
  assert.equal(pair.armKicks(), false, "nothing anywhere");
  for (let n = 0; n < 40; n++) port.incoming.push(frameOf(n));
  port.receiveDrained = false;
  assert.equal(pair.armKicks(), true);
  bench.settle();
  assert.ok(port.incoming.length > 0, "the guest has no room left");
  assert.equal(pair.rxStarved, true);
  assert.equal(pair.armKicks(), false, "its kick is waited for");
  pair.disarmKicks();
  while (bench.take().length > 0) bench.settle();
  assert.equal(port.incoming.length, 0);
  assert.equal(pair.armKicks(), false);
  bench.close();
});

test("loop stays awake when a paced source has packets left to give", () => {
  const bench = opened();
  const [pair] = bench.local.pairs;
  const source = new SourcePort({ rate: 1, count: 1 });
  pair.setPort(source);
  bench.settle();
  assert.equal(pair.armKicks(), true, "a second has not passed");
  const busy = new SourcePort({ count: 3 });
  pair.setPort(busy);
  bench.settle();
  assert.equal(busy.given, 3);
  assert.equal(pair.armKicks(), false);
  for (const port of [source, busy]) port.close();
  bench.close();
});

test("packets in flight in a port are counted as dropped when another port replaces it", () => {
  const bench = opened();
  const [pair] = bench.local.pairs;
  const loopback = new LoopbackPort("drop");
  pair.setPort(loopback);
  // Twice as many as a ring holds; the guest receives none meanwhile.
  for (let n = 0; n < 32; n++) {
    assert.ok(bench.driver.send(0, frameOf(n)));
    bench.settle();
  }
  pair.setPort(new SourcePort({ count: 0 }));
  const arrived = bench.take().length;
  assert.ok(arrived > 0 && arrived < 32);
  assert.equal(arrived + pair.rx.counters[DROP_PORT], 32);
  assert.equal(pair.tx.counters[DROP_PORT], 0);
  bench.close();
});

for (const device of FORMATS) {
  test(`${device.name}: lost receive interrupt is sent again when the guest always sends`, () => {
    const bench = opened(device);
    const received = () => bench.vectors.filter((vector) => vector === 0).length;
    assert.deepEqual(bench.take(), [], "nothing there");
    bench.vectors.splice(0);
    bench.ports[0].incoming.push(frameOf(7));
    const deadline = performance.now() + 30_000;
    // The loop never sleeps. The guest sends in every turn and misses the first interrupt.
    const loop = new Loop({
      pairs: bench.local.pairs,
      spinUs: Number.POSITIVE_INFINITY,
      control: {
        timeoutMs: -1,
        register: () => {},
        handle: () => {
          bench.driver.send(0, frameOf(1));
          bench.ports[0].sent.length = 0;
          if (received() >= 2 || performance.now() > deadline) loop.stop();
          return 0;
        },
      },
    });
    loop.run();
    loop.close();
    assert.ok(
      received() >= 2,
      "sent again; on a busy machine even twice before the guest has its turn",
    );
    assert.equal(bench.take().length, 1);
    bench.close();
  });

  test(`${device.name}: lost receive interrupt is sent again when the rings are idle`, () => {
    const bench = opened(device);
    const [pair] = bench.local.pairs;
    assert.deepEqual(bench.take(), [], "nothing there");
    bench.vectors.splice(0);
    pair.lookAgain();
    assert.deepEqual(bench.vectors.splice(0), [], "nothing is due");
    bench.ports[0].incoming.push(frameOf(7));
    bench.settle();
    assert.deepEqual(bench.vectors.splice(0), [0], "sent with the packet");
    pair.lookAgain();
    assert.deepEqual(bench.vectors.splice(0), [0], "and again, as if the first one had been lost");
    assert.equal(pair.rx.counters[INTERRUPTS], 2);
    assert.equal(bench.take().length, 1);
    pair.lookAgain();
    assert.deepEqual(bench.vectors.splice(0), [], "taken");
    bench.close();
  });
}

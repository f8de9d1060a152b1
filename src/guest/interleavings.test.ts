/**
 * No lost wake-up. Each side's sequence (store a request or an index, load the other's) is cut at
 * every one of its steps, and the whole of the other's runs there, at every position of a small
 * ring and over its wraps: whoever came second must have seen the first, or have been told.
 */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { Bench, frameOf } from "../../test/support/guest.ts";
import { DEVICES } from "../devices/index.ts";

/**
 * Runs `action` with `cut` called before its `at`-th access to
 * shared memory. @returns were there that many?
 */
function cutAt(at: number, action: () => void, cut: () => void): boolean {
  const { load, store } = Atomics;
  let step = 0;
  const pass = (): void => {
    if (step++ !== at) return;
    restore();
    cut();
    intercept();
  };
  const restore = (): void => {
    Object.assign(Atomics, { load, store });
  };
  const intercept = (): void => {
    Object.assign(Atomics, {
      load: (array: Int32Array, index: number) => {
        pass();
        return load(array, index);
      },
      store: (array: Int32Array, index: number, value: number) => {
        pass();
        return store(array, index, value);
      },
    });
  };
  intercept();
  try {
    action();
  } finally {
    restore();
  }
  const reached = step > at;
  // Behind the last step is a place, too.
  if (!reached) cut();
  return reached;
}

const FRAME = frameOf(1);
const BUFS = 16;
/** Two laps and a bit: every slot, both values of a wrap bit. By default those around the wraps. */
const POSITIONS =
  process.env.BPFHV_FULL === "1"
    ? Array.from({ length: 2 * BUFS + 3 }, (_, i) => i)
    : [0, 1, BUFS - 2, BUFS - 1, BUFS, 2 * BUFS - 1, 2 * BUFS];

/** Runs `scenario` with the cut at each step, on a ring that has moved to each position. */
function everywhere(make: () => Bench, scenario: (bench: Bench, at: number) => boolean): number {
  let cases = 0;
  for (const position of POSITIONS) {
    for (let at = 0, more = true; more; at++, cases++) {
      const bench = make();
      for (let n = 0; n < position; n++) {
        bench.driver.send(0, FRAME);
        bench.ports[0].incoming.push(FRAME);
        bench.settle();
        bench.driver.clean(0);
        bench.take();
      }
      more = scenario(bench, at);
      bench.close();
    }
  }
  return cases;
}

/**
 * The guest arms at a cut of what the host does: it is ready at once, or
 * told. @returns whether the cut was reached
 */
function armedDuring(
  bench: Bench,
  at: number,
  ring: Bench["driver"]["tx"][number],
  host: (pair: Bench["local"]["pairs"][number]) => void,
): boolean {
  let ready = false;
  let vectors = 0;
  const more = cutAt(
    at,
    () => host(bench.local.pairs[0]),
    () => {
      vectors = bench.vectors.length;
      ready = ring.arm(1);
    },
  );
  assert.ok(ready || bench.vectors.length > vectors, `cut ${at}: nobody tells the guest`);
  return more;
}

for (const device of DEVICES) {
  for (const form of ["helperfree", "v1"] as const) {
    describe(`${device.name}, ${form}`, () => {
      const make = (): Bench => {
        const bench = new Bench({
          device,
          form,
          config: { rxBufs: BUFS, txBufs: BUFS },
          mib: 1,
          guest: { bufferSize: 2048 },
        });
        bench.driver.open();
        bench.settle();
        return bench;
      };

      test("the guest publishes while the host falls asleep", () => {
        const cases = everywhere(make, (bench, at) => {
          const [pair] = bench.local.pairs;
          pair.disarmKicks();
          const before = bench.driver.counters.kicks;
          let awake = false;
          const more = cutAt(
            at,
            () => {
              awake = pair.armKicks();
            },
            () => bench.driver.send(0, FRAME),
          );
          assert.ok(awake || bench.driver.counters.kicks > before, `cut ${at}: sleeps on work`);
          return more;
        });
        assert.ok(cases >= 2 * POSITIONS.length, `${cases} cases`);
      });

      // The other way round, a program can only be cut where it calls a
      // helper: at the barrier of its v1 form.
      const atBarrier = form === "v1" ? test : null;

      atBarrier?.("the host falls asleep while the guest publishes", () => {
        everywhere(make, (bench) => {
          const [pair] = bench.local.pairs;
          pair.disarmKicks();
          const before = bench.driver.counters.kicks;
          let awake = false;
          // Between the index and the load of the host's kick request:
          // where the program has its barrier.
          bench.driver.tx[0].onBarrier = () => {
            awake = pair.armKicks();
          };
          bench.driver.send(0, FRAME);
          assert.ok(awake || bench.driver.counters.kicks > before, "sleeps on work");
          return false;
        });
      });

      test("the guest arms its interrupt while the host completes what it sent", () => {
        const cases = everywhere(make, (bench, at) => {
          bench.driver.send(0, FRAME);
          return armedDuring(bench, at, bench.driver.tx[0], (pair) => pair.drainTx());
        });
        assert.ok(cases >= 3 * POSITIONS.length, `${cases} cases`);
      });

      test("the guest arms its interrupt while the host delivers", () => {
        const cases = everywhere(make, (bench, at) => {
          bench.driver.rx[0].arm(0);
          bench.ports[0].incoming.push(FRAME);
          return armedDuring(bench, at, bench.driver.rx[0], (pair) => pair.fillRx());
        });
        assert.ok(cases >= 3 * POSITIONS.length, `${cases} cases`);
      });

      atBarrier?.("the host completes and delivers while the guest arms", () => {
        everywhere(make, (bench) => {
          const [pair] = bench.local.pairs;
          bench.driver.send(0, FRAME);
          bench.driver.tx[0].onBarrier = () => pair.drainTx();
          const sent = bench.vectors.length;
          assert.ok(bench.driver.tx[0].arm(1) || bench.vectors.length > sent, "sent");
          bench.driver.rx[0].arm(0);
          bench.ports[0].incoming.push(FRAME);
          bench.driver.rx[0].onBarrier = () => pair.fillRx();
          const received = bench.vectors.length;
          assert.ok(bench.driver.rx[0].arm(1) || bench.vectors.length > received, "received");
          return false;
        });
      });
    });
  }
}

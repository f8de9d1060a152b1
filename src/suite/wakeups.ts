/**
 * No wake-up is lost. The steps of each side (store a request or an index, load the other's) are
 * interrupted one by one, and the other side's whole sequence runs there, at every position of a
 * small ring and across its wraps. The second side must see the first one's store, or be notified.
 */
import assert from "node:assert/strict";
import { Bench, frameOf } from "./bench.ts";
import { type Case, casesOf, type Subject } from "./case.ts";

/**
 * Runs `action` and calls `cut` before its `at`-th access to shared memory.
 * @returns false if there were fewer accesses
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
  // The point after the last step counts, too.
  if (!reached) cut();
  return reached;
}

const FRAME = frameOf(1);
const BUFS = 16;
/** Two laps and a bit: every slot, both values of a wrap bit. */
const ALL_POSITIONS = Array.from({ length: 2 * BUFS + 3 }, (_, i) => i);
/** Those around the wraps. */
const SOME_POSITIONS = [0, 1, BUFS - 2, BUFS - 1, BUFS, 2 * BUFS - 1, 2 * BUFS];
const positionsOf = ({ runs }: Subject): readonly number[] =>
  runs > 1000 ? ALL_POSITIONS : SOME_POSITIONS;

function benchOf({ format, form }: Subject): Bench {
  const bench = new Bench({
    ...{ device: format, form, mib: 1, config: { rxBufs: BUFS, txBufs: BUFS } },
    guest: { bufferSize: 2048 },
  });
  bench.driver.open();
  bench.settle();
  return bench;
}

/** Runs `scenario` interrupted at each step, on a ring moved to each position. */
function everywhere(subject: Subject, scenario: (bench: Bench, at: number) => boolean): number {
  let cases = 0;
  for (const position of positionsOf(subject)) {
    for (let at = 0, more = true; more; at++, cases++) {
      const bench = benchOf(subject);
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
 * The guest arms during the host's action: it sees the completion at once, or is notified. @returns
 * false if `at` was not reached
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
  assert.ok(ready || bench.vectors.length > vectors, `cut ${at}: the guest is not notified`);
  return more;
}

/** The host is interrupted between two accesses to shared memory. */
const CHECKS: Readonly<Record<string, (subject: Subject) => void>> = {
  "host sees or is kicked for work when the guest publishes while it arms kicks": (subject) => {
    const cases = everywhere(subject, (bench, at) => {
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
    assert.ok(cases >= 2 * positionsOf(subject).length, `${cases} cases`);
  },

  "guest sees or is interrupted for completions when it arms while the host completes": (
    subject,
  ) => {
    const cases = everywhere(subject, (bench, at) => {
      bench.driver.send(0, FRAME);
      return armedDuring(bench, at, bench.driver.tx[0], (pair) => pair.drainTx());
    });
    assert.ok(cases >= 3 * positionsOf(subject).length, `${cases} cases`);
  },

  "guest sees or is interrupted for packets when it arms while the host delivers": (subject) => {
    const cases = everywhere(subject, (bench, at) => {
      bench.driver.rx[0].arm(0);
      bench.ports[0].incoming.push(FRAME);
      return armedDuring(bench, at, bench.driver.rx[0], (pair) => pair.fillRx());
    });
    assert.ok(cases >= 3 * positionsOf(subject).length, `${cases} cases`);
  },
};

/** A program can only be interrupted at a helper call: the barrier of the v1 form. */
const AT_BARRIER: Readonly<Record<string, (subject: Subject) => void>> = {
  "host sees or is kicked for work when it arms kicks while the guest publishes": (subject) => {
    everywhere(subject, (bench) => {
      const [pair] = bench.local.pairs;
      pair.disarmKicks();
      const before = bench.driver.counters.kicks;
      // A program that calls no barrier has one in an atomic, and cannot be interrupted.
      let reached = false;
      let awake = false;
      // At the program's barrier: between the index and the load of the host's kick request.
      bench.driver.tx[0].onBarrier = () => {
        reached = true;
        awake = pair.armKicks();
      };
      bench.driver.send(0, FRAME);
      assert.ok(!reached || awake || bench.driver.counters.kicks > before, "sleeps on work");
      return false;
    });
  },

  "guest sees or is interrupted for work when the host completes and delivers while it arms": (
    subject,
  ) => {
    everywhere(subject, (bench) => {
      const [pair] = bench.local.pairs;
      bench.driver.send(0, FRAME);
      let reached = false;
      bench.driver.tx[0].onBarrier = () => {
        reached = true;
        pair.drainTx();
      };
      const sent = bench.vectors.length;
      assert.ok(bench.driver.tx[0].arm(1) || !reached || bench.vectors.length > sent, "sent");
      bench.driver.rx[0].arm(0);
      bench.ports[0].incoming.push(FRAME);
      reached = false;
      bench.driver.rx[0].onBarrier = () => {
        reached = true;
        pair.fillRx();
      };
      const received = bench.vectors.length;
      assert.ok(
        bench.driver.rx[0].arm(1) || !reached || bench.vectors.length > received,
        "received",
      );
      return false;
    });
  },
};

/** No wake-up is lost, on either side. */
export function wakeUpCases(subject: Subject): Case[] {
  const checks = casesOf(subject, CHECKS);
  return subject.form === "v1" ? [...checks, ...casesOf(subject, AT_BARRIER)] : checks;
}

/** A loop whose process was stopped: what the guest said meanwhile comes before its rings. */
import assert from "node:assert/strict";
import { afterEach, mock, test } from "node:test";
import { Bench, frameOf } from "../../test/support/guest.ts";
import { FORMATS } from "../devices/registry.ts";
import type { Epoll } from "../os/epoll.ts";
import { Loop } from "./loop.ts";

const STOP_MS = 6000;

afterEach(() => mock.restoreAll());

/** Lets the clock jump whenever `stop` of the result is called. */
function stoppableClock(): { stop: () => void } {
  const now = performance.now.bind(performance);
  let skew = 0;
  mock.method(performance, "now", () => now() + skew);
  return {
    stop: () => {
      skew += STOP_MS;
    },
  };
}

for (const device of FORMATS)
  for (const asleep of [true, false]) {
    const state = asleep ? "while it slept" : "in a turn";
    test(`${device.name}: loop writes to no buffer before the guest's messages when it was stopped ${state}`, () => {
      const bench = new Bench({ device, config: { rxBufs: 16 } });
      bench.driver.open();
      bench.settle();
      assert.deepEqual(bench.take(), []);
      const clock = stoppableClock();
      let messages = 0;
      const stop = (): void => {
        if (messages > 0) return;
        clock.stop();
        bench.ports[0].incoming.push(frameOf(1));
        messages = 3;
      };
      let turns = 0;
      const loop: Loop = new Loop({
        pairs: bench.local.pairs,
        spinUs: asleep ? 0 : Number.POSITIVE_INFINITY,
        // Not in the turn itself: it may be between the control and the rings.
        housekeeping: () => {},
        control: {
          timeoutMs: 1,
          register: (epoll: Epoll) => {
            const wait = epoll.wait.bind(epoll);
            mock.method(epoll, "wait", (ms: number) => {
              stop();
              return wait(ms);
            });
          },
          handle: () => {
            // Two others come before the one that takes memory away.
            if (messages > 0 && --messages === 0) {
              bench.nic.busMasterChanged(false);
              loop.stop();
              return 1;
            }
            if (++turns > 100) loop.stop();
            if (!asleep && turns === 3) stop();
            return messages > 0 ? 1 : 0;
          },
        },
      });
      loop.run();
      loop.close();
      assert.equal(bench.nic.state.busMaster, false);
      assert.deepEqual(bench.take(), []);
      bench.close();
    });
  }

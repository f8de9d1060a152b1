/**
 * A VMM that wants the backend to hang: every descriptor that it
 * gives blocks, or is of another kind.
 */
import assert from "node:assert/strict";
import test from "node:test";
import { blockingFull, isolated, openFds, strangers, until } from "../../../test/support/os.ts";
import { ProxyBench, words } from "../../../test/support/proxy.ts";
import { Epoll } from "../../os/epoll.ts";
import { close } from "../../os/fd.ts";
import * as libc from "../../os/libc.ts";
import { FLAG_ERROR } from "./protocol.ts";

const REQUEST = { kick: 7, irq: 8, upgrade: 9 } as const;

/** The answer's flags. */
function ask(bench: ProxyBench, type: number, payload: Uint8Array, fds: readonly number[]): number {
  const reply = bench.ask(type, payload, fds);
  if (reply === null || reply === "closed") throw new Error(`no answer to ${type}`);
  return reply.flags;
}

const inChild = isolated(import.meta.url, {
  "interrupt a full counter": () => {
    const bench = new ProxyBench();
    bench.configure();
    for (const queue of [0, 1]) {
      assert.equal(ask(bench, REQUEST.irq, words(queue), [blockingFull()]) & FLAG_ERROR, 0);
    }
    for (let n = 0; n < 10; n++) for (const queue of [0, 1]) bench.frontend.backend.fire(queue);
  },
  "ask for an upgrade of a full counter": () => {
    const bench = new ProxyBench();
    assert.equal(ask(bench, REQUEST.upgrade, words(0), [blockingFull()]) & FLAG_ERROR, 0);
    assert.equal(bench.frontend.backend.signalUpgrade(), true);
  },
  "be woken by an empty counter": () => {
    const bench = new ProxyBench();
    bench.configure();
    const kick = libc.eventfd(0, 0);
    assert.equal(ask(bench, REQUEST.kick, words(0), [kick]) & FLAG_ERROR, 0);
    // As the loop does when the VMM has read the counter back between the wake-up and this.
    assert.equal(bench.frontend.woken(1025), true);
  },
});

for (const [check, name] of [
  ["interrupt a full counter", "a backend interrupts when the counter is full and blocking"],
  [
    "ask for an upgrade of a full counter",
    "a backend asks for an upgrade when the counter is full and blocking",
  ],
  [
    "be woken by an empty counter",
    "a backend takes a kick when the counter is empty again and blocking",
  ],
] as const) {
  test(name, async () => assert.equal(await inChild(check), 0));
}

test("a backend refuses a notifier when it is not an eventfd", async () => {
  const bench = new ProxyBench();
  try {
    bench.configure();
    const before = openFds();
    for (const { name, fd } of strangers()) {
      for (const [type, payload] of [
        [REQUEST.kick, words(0)],
        [REQUEST.irq, words(1)],
        [REQUEST.upgrade, words(0)],
      ] as const) {
        assert.ok(ask(bench, type, payload, [fd]) & FLAG_ERROR, `${name} for ${type}`);
      }
      close(fd);
    }
    // Some are closed by threads of their own.
    await until("all are closed", () => openFds() === before);
    assert.match(bench.frontend.backend.lastRefusal, /not an eventfd/);
  } finally {
    bench.close();
  }
});

test("a backend's loop wakes once when a kick's counter is never read", () => {
  const bench = new ProxyBench();
  const epoll = new Epoll(4);
  try {
    bench.frontend.register(epoll);
    bench.configure();
    const kick = blockingFull();
    assert.equal(ask(bench, REQUEST.kick, words(0), [kick]) & FLAG_ERROR, 0);
    assert.equal(epoll.wait(0), 1);
    assert.equal(epoll.wait(0), 0);
    close(kick);
  } finally {
    bench.close();
    epoll.close();
  }
});

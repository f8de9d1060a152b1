/**
 * Event descriptors whose open file a peer shares: no call on them blocks, whatever the peer does.
 */
import assert from "node:assert/strict";
import test from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import {
  blockingFull,
  exhaust,
  isolated,
  lingering,
  openFds,
  strangers,
} from "../../test/support/os.ts";
import { AioSignaller } from "./aio.ts";
import { EPOLLET, EPOLLIN, Epoll } from "./epoll.ts";
import {
  createEventFd,
  drainEventFd,
  isEventFd,
  signalEventFd,
  signalPeer,
  signalWritable,
} from "./eventfd.ts";
import { close, fdTarget } from "./fd.ts";
import * as libc from "./libc.ts";
import { closePeer } from "./peer-close.ts";

const inChild = isolated(import.meta.url, {
  "signal a full counter": () => {
    const fd = blockingFull();
    for (let n = 0; n < 1000; n++) assert.equal(signalPeer(fd), true);
    assert.equal(drainEventFd(fd), 0xffffffff);
    assert.equal(signalPeer(fd), true);
    assert.equal(drainEventFd(fd), 1);
  },
  "signal a full counter without asynchronous requests": () => {
    const fd = blockingFull();
    assert.equal(signalWritable(fd), true);
    assert.equal(drainEventFd(fd), 0xffffffff);
    assert.equal(signalWritable(fd), true);
    assert.equal(drainEventFd(fd), 1);
  },
  "close what lingers": () => {
    const { fd } = lingering(8);
    const start = performance.now();
    assert.equal(closePeer(fd), true);
    assert.ok(performance.now() - start < 2000);
  },
  "close a socket without a free descriptor": () => {
    const { fd } = lingering(0);
    exhaust(0);
    assert.equal(closePeer(fd), true);
    while (fdTarget(fd) !== "closed");
  },
  "drain an empty counter": () => {
    assert.equal(drainEventFd(libc.eventfd(0, 0)), 0);
  },
});

for (const [name, what] of [
  ["signal a full counter", "signalling a peer returns when its counter is full and blocking"],
  [
    "signal a full counter without asynchronous requests",
    "signalling a peer returns when its counter is full and no request context is available",
  ],
  ["close what lingers", "closing a peer's descriptor returns when its socket lingers"],
  [
    "close a socket without a free descriptor",
    "closing a peer's descriptor closes it when this process may open no more",
  ],
  ["drain an empty counter", "drain returns when a peer made the descriptor blocking"],
] as const) {
  test(what, async () => assert.equal(await inChild(name), 0));
}

test("signalling a peer counts every signal when their number exceeds the context's ring", () => {
  const before = openFds();
  const signaller = AioSignaller.open()!;
  const fd = createEventFd();
  for (let n = 0; n < 5000; n++) assert.equal(signaller.signal(fd), true);
  assert.equal(drainEventFd(fd), 5000);
  close(fd);
  assert.equal(signaller.signal(fd), false, "closed");
  assert.equal(openFds(), before + 1, "the sink of the context");
});

test("signalling refuses a descriptor when it is not an eventfd", () => {
  for (const { name, fd } of strangers()) {
    assert.equal(isEventFd(fd), false, name);
    assert.equal(signalPeer(fd), false, name);
    close(fd);
  }
});

test("epoll reports a kick once when the counter is not read", () => {
  const epoll = new Epoll(2);
  const fd = createEventFd();
  epoll.add(fd, EPOLLIN | EPOLLET, 5);
  for (let n = 0; n < 3; n++) {
    signalEventFd(fd);
    assert.equal(epoll.wait(0), 1);
    assert.equal(epoll.tag(0), 5);
    assert.equal(epoll.wait(0), 0);
  }
  close(fd);
  epoll.close();
});

test("closePeer closes descriptors of every kind", async () => {
  const all = strangers().map(({ fd }) => fd);
  for (const fd of [...all, createEventFd()]) assert.equal(closePeer(fd), true);
  const isOpen = (fd: number) => fdTarget(fd) !== "closed";
  for (let n = 0; n < 200 && all.some(isOpen); n++) await sleep(10);
  assert.deepEqual(all.filter(isOpen), []);
});

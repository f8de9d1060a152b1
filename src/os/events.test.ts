import assert from "node:assert/strict";
import test from "node:test";
import { openFds } from "../../test/support/os.ts";
import { EPOLLHUP, EPOLLIN, EPOLLOUT, Epoll } from "./epoll.ts";
import { createEventFd, drainEventFd, signalEventFd } from "./eventfd.ts";
import { close } from "./fd.ts";
import { socketPair } from "./unix-socket.ts";

test("event descriptor counts signals and is empty after a drain", () => {
  const fd = createEventFd();
  assert.equal(drainEventFd(fd), 0);
  for (let i = 0; i < 3; i++) signalEventFd(fd);
  assert.equal(drainEventFd(fd), 3);
  assert.equal(drainEventFd(fd), 0);
  close(fd);
});

test("epoll reports the tags and events of ready descriptors only", () => {
  const before = openFds();
  const epoll = new Epoll(4);
  const fds = Array.from({ length: 6 }, createEventFd);
  for (const [i, fd] of fds.entries()) epoll.add(fd, EPOLLIN, 0xfffffff0 + i);
  assert.equal(epoll.wait(0), 0);
  signalEventFd(fds[1]!);
  signalEventFd(fds[5]!);
  assert.equal(epoll.wait(0), 2);
  assert.deepEqual([epoll.tag(0), epoll.tag(1)].sort(), [0xfffffff1, 0xfffffff5]);
  assert.equal(epoll.events(0), EPOLLIN);
  for (const fd of fds) signalEventFd(fd);
  assert.equal(epoll.wait(0), 4, "at most the capacity in one wait");
  epoll.remove(fds[5]!);
  epoll.modify(fds[1]!, EPOLLOUT, 7);
  for (const fd of fds.slice(2)) drainEventFd(fd);
  drainEventFd(fds[0]!);
  assert.equal(epoll.wait(0), 1);
  assert.equal(epoll.tag(0), 7);
  epoll.close();
  epoll.close();
  for (const fd of fds) close(fd);
  assert.equal(openFds(), before);
});

test("epoll reports a hang-up when the peer closes and refuses a closed descriptor", () => {
  const epoll = new Epoll();
  const [a, b] = socketPair();
  epoll.add(a, EPOLLIN, 1);
  close(b);
  assert.equal(epoll.wait(100), 1);
  assert.ok(epoll.events(0) & EPOLLHUP);
  close(a);
  assert.throws(() => epoll.add(a, EPOLLIN, 1), { code: "EBADF", call: "epoll_ctl" });
  epoll.close();
});

test("epoll wait returns when its timeout expires", () => {
  const epoll = new Epoll();
  const start = performance.now();
  assert.equal(epoll.wait(20), 0);
  assert.ok(performance.now() - start >= 18);
  epoll.close();
});

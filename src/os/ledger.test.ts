import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { test } from "node:test";
import { Epoll } from "./epoll.ts";
import { createEventFd } from "./eventfd.ts";
import { close } from "./fd.ts";
import { heldBy, keepLedger, newLedger, recordFd } from "./ledger.ts";
import { createMemfd, mapAnonymous, mapFile, PAGE } from "./memory.ts";
import { SocketReceiver, sendMessage } from "./messages.ts";
import { releaseHeld } from "./release.ts";
import { socketPair } from "./unix-socket.ts";

const isOpen = (fd: number): boolean => existsSync(`/proc/self/fd/${fd}`);

test("a ledger lists what its thread has opened and mapped, until that is closed", () => {
  const ledger = newLedger();
  keepLedger(ledger);
  const fd = createMemfd("ledger", PAGE);
  const eventFd = createEventFd();
  const epoll = new Epoll(1);
  const mappings = [mapFile(fd, 0, PAGE, { write: true }), mapAnonymous(3 * PAGE)];
  const { fds } = heldBy(ledger);
  assert.equal(fds.length, 3);
  assert.ok(fds.includes(fd) && fds.includes(eventFd));
  const listed = heldBy(ledger).mappings.map(({ address, length }) => [address, length]);
  for (const { address, length } of mappings) {
    assert.ok(listed.some(([at, bytes]) => at === address && bytes === length));
  }
  for (const each of [fd, eventFd]) close(each);
  epoll.close();
  for (const mapping of mappings) mapping.unmap();
  const left = heldBy(ledger).mappings.filter(({ address }) =>
    mappings.some((mapping) => mapping.address === address),
  );
  assert.deepEqual([heldBy(ledger).fds, left], [[], []]);
});

test("a ledger lists descriptors that a peer has sent", () => {
  const [ours, theirs] = socketPair();
  const sent = createEventFd();
  const buffer = mapAnonymous(PAGE);
  const receiver = new SocketReceiver();
  const ledger = newLedger();
  keepLedger(ledger);
  sendMessage(theirs, buffer.address, 1, [sent]);
  receiver.receiveAt(ours, buffer.address, 1);
  assert.deepEqual(heldBy(ledger).fds, [...receiver.fds]);
  for (const fd of [...receiver.fds, ours, theirs, sent]) close(fd);
  assert.deepEqual(heldBy(ledger).fds, []);
  receiver.close();
  buffer.unmap();
});

test("releaseHeld closes and unmaps what a ledger lists", () => {
  const ledger = newLedger();
  keepLedger(ledger);
  const fd = createMemfd("released", PAGE);
  mapFile(fd, 0, PAGE, { write: true });
  keepLedger(newLedger());
  const isMapped = (): boolean => readFileSync("/proc/self/maps", "utf8").includes(":released");
  assert.ok(isOpen(fd) && isMapped());
  releaseHeld(ledger);
  assert.deepEqual([isOpen(fd), isMapped()], [false, false]);
});

test("releaseHeld ends a connection in order when bytes of the peer are unread", () => {
  const [ours, theirs] = socketPair();
  const buffer = mapAnonymous(PAGE);
  sendMessage(theirs, buffer.address, PAGE);
  const ledger = newLedger();
  keepLedger(ledger);
  recordFd(ours);
  keepLedger(newLedger());
  releaseHeld(ledger);
  assert.equal(isOpen(ours), false);
  const receiver = new SocketReceiver();
  // A reset connection throws ECONNRESET.
  assert.equal(receiver.receiveAt(theirs, buffer.address, PAGE), 0);
  close(theirs);
  receiver.close();
  buffer.unmap();
});

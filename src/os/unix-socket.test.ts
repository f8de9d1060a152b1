import assert from "node:assert/strict";
import { existsSync, mkdtempSync, rmSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test from "node:test";
import { openFds } from "../../test/support/os.ts";
import { createEventFd, drainEventFd, signalEventFd } from "./eventfd.ts";
import { close, fstat } from "./fd.ts";
import { type Mapping, mapAnonymous } from "./memory.ts";
import { SocketReceiver, sendMessage } from "./messages.ts";
import {
  accept,
  connectUnix,
  listenUnix,
  peerCredentials,
  shutdown,
  socketPair,
} from "./unix-socket.ts";

function text(memory: Mapping, value: string): number {
  new Uint8Array(memory.view(0, memory.length)).set(Buffer.from(value));
  return value.length;
}

function inFolder(action: (folder: string) => void): void {
  const folder = mkdtempSync(join(tmpdir(), "bpfhv-os-"));
  const before = openFds();
  try {
    action(folder);
    assert.equal(openFds(), before, "no descriptor left");
  } finally {
    rmSync(folder, { recursive: true });
  }
}

test("receiver returns descriptors with the bytes that they were sent with", () => {
  const before = openFds();
  const memory = mapAnonymous(4096);
  const receiver = new SocketReceiver();
  const [a, b] = socketPair();
  const events = [createEventFd(), createEventFd()];
  assert.equal(sendMessage(a, memory.address, text(memory, "hello"), events), 5);
  assert.equal(receiver.receive(b, { address: memory.address + 100, length: 50 }), 5);
  assert.equal(Buffer.from(memory.view(100, 5)).toString(), "hello");
  assert.equal(receiver.fds.length, 2);
  const got = [...receiver.fds];
  signalEventFd(got[1]!);
  assert.deepEqual(events.map(drainEventFd), [0, 1]);
  assert.equal(receiver.receive(b, memory), -1, "nothing more");
  assert.deepEqual(receiver.fds, []);
  for (const fd of [...got, ...events, a, b]) close(fd);
  receiver.close();
  memory.unmap();
  assert.equal(openFds(), before);
});

test("receive fails and closes all descriptors when there are more than allowed", () => {
  for (const [room, sent] of [
    [4, 5],
    [4, 6],
    [3, 4],
    [1, 2],
    [16, 40],
  ] as const) {
    const memory = mapAnonymous(4096);
    const receiver = new SocketReceiver(room);
    const [a, b] = socketPair();
    const event = createEventFd();
    const before = openFds();
    sendMessage(a, memory.address, 1, new Array(sent).fill(event));
    assert.throws(() => receiver.receive(b, memory), { code: "EMSGSIZE" });
    assert.equal(openFds(), before, `${sent} sent to room for ${room}`);
    sendMessage(a, memory.address, 1, new Array(room).fill(event));
    assert.equal(receiver.receive(b, memory), 1);
    assert.equal(receiver.fds.length, room, "exactly as many as allowed are fine");
    for (const fd of [...receiver.fds, event, a, b]) close(fd);
  }
});

test("sendMessage returns -1 when the socket is full and throws when the peer is gone", () => {
  const memory = mapAnonymous(65536);
  const [a, b] = socketPair();
  let sent = 0;
  while (sendMessage(a, memory.address, 65536) > 0) assert.ok(sent++ < 1000);
  assert.ok(sent > 0);
  close(b);
  assert.throws(() => sendMessage(a, memory.address, 1), { code: /EPIPE|ECONNRESET/ });
  close(a);
});

test("receive returns 0 at the end of the stream and after a shutdown", () => {
  const memory = mapAnonymous(4096);
  const receiver = new SocketReceiver();
  const [a, b] = socketPair();
  shutdown(a);
  shutdown(a);
  assert.equal(receiver.receive(b, memory), 0);
  assert.equal(receiver.receive(a, memory), 0);
  close(a);
  close(b);
  assert.throws(() => receiver.receive(a, memory), { code: "EBADF", call: "recvmsg" });
});

test("listening socket accepts, knows its peer and is private to its owner", () => {
  inFolder((folder) => {
    const path = join(folder, "s");
    const listener = listenUnix(path);
    assert.equal(statSync(path).mode & 0o777, 0o600);
    assert.equal(accept(listener), -1);
    const client = connectUnix(path);
    const server = accept(listener);
    assert.equal(peerCredentials(server).pid, process.pid);
    assert.equal(peerCredentials(server).uid, process.getuid!());
    for (const fd of [client, server, listener]) close(fd);
  });
});

test("listening socket has the requested mode and group under any umask", () => {
  inFolder((folder) => {
    const before = process.umask(0o077);
    try {
      const path = join(folder, "s");
      const [gid] = process.getgroups!();
      close(listenUnix(path, { mode: 0o660, gid }));
      assert.equal(statSync(path).mode & 0o777, 0o660);
      assert.equal(statSync(path).gid, gid);
    } finally {
      process.umask(before);
    }
  });
});

test("socket is removed when its owner or group cannot be set", {
  skip: process.getuid!() !== 0 ? false : "root may give it to anybody",
}, () => {
  inFolder((folder) => {
    const path = join(folder, "s");
    assert.throws(() => listenUnix(path, { gid: 0 }), { code: "EPERM", message: /only root/ });
    assert.equal(existsSync(path), false);
  });
});

test("listenUnix replaces a stale socket, but not a live one or another file", () => {
  inFolder((folder) => {
    const path = join(folder, "s");
    close(listenUnix(path));
    const listener = listenUnix(path);
    assert.throws(() => listenUnix(path), {
      code: "EADDRINUSE",
      message: /live server.*another path/,
    });
    const inode = fstat(listener).ino;
    assert.ok(inode > 0 && existsSync(path), "the live socket is untouched");
    close(connectUnix(path));
    close(listener);
    const file = join(folder, "file");
    writeFileSync(file, "precious");
    assert.throws(() => listenUnix(file), { code: "EEXIST" });
    const link = join(folder, "link");
    symlinkSync(path, link);
    assert.throws(() => listenUnix(link), { code: "EEXIST" }, "a link is not followed");
    assert.ok(existsSync(file));
  });
});

test("path errors say what to do", () => {
  inFolder((folder) => {
    const long = join(folder, "x".repeat(108));
    assert.throws(() => listenUnix(long), { code: "ENAMETOOLONG", message: /1 to 107 bytes/ });
    assert.throws(() => connectUnix(long), { code: "ENAMETOOLONG" });
    assert.throws(() => listenUnix(join(folder, "no/such/s")), {
      message: /make its folder first/,
    });
    assert.throws(() => connectUnix(join(folder, "none")), { message: /start the server first/ });
    const exact = join(folder, "y".repeat(107 - folder.length - 1));
    close(listenUnix(exact));
    assert.ok(existsSync(exact), "107 bytes are not cut");
  });
});

/** A server whose process may open no more files: clients wait, and the log says why. */
import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { exhaust, isolated } from "../../test/support/os.ts";
import {
  message,
  RawClient,
  RecordingDevice,
  u32s,
  VERSION_PAYLOAD,
} from "../../test/support/vfio-user.ts";
import { Epoll } from "../os/epoll.ts";
import { createEventFd } from "../os/eventfd.ts";
import { close } from "../os/fd.ts";
import { connectUnix, socketPair } from "../os/unix-socket.ts";
import { VfioUserServer } from "./server.ts";

function waitFor(server: VfioUserServer): void {
  const until = performance.now() + 3000;
  while (!server.connected && performance.now() < until) {
    server.handleTimers();
    server.handleReadable();
  }
}

const inChild = isolated(import.meta.url, {
  accept: () => {
    const folder = mkdtempSync(join(tmpdir(), "bpfhv-fds-"));
    const socketPath = join(folder, "nic.sock");
    const warnings: string[] = [];
    const onWarning = (code: string, text: string) => warnings.push(`${code}: ${text}`);
    const server = new VfioUserServer(new RecordingDevice(), { socketPath, onWarning });
    const epoll = new Epoll(4);
    server.register(epoll, 1);
    const client = connectUnix(socketPath);
    const held = exhaust(0);
    assert.equal(epoll.wait(0), 1);
    for (let n = 0; n < 100; n++) server.handleReadable();
    assert.equal(server.connected, false);
    assert.equal(epoll.wait(0), 0, "nothing keeps the loop awake");
    assert.ok(server.timeoutMs > 0 && server.timeoutMs <= 500, `${server.timeoutMs}`);
    assert.equal(server.counters.acceptFailures, 1);
    assert.equal(warnings.length, 1);
    assert.match(warnings[0], /accept-failed: a client waits: accept .*EMFILE.*ulimit -n/);
    for (const fd of held) close(fd);
    waitFor(server);
    assert.equal(server.connected, true);
    close(client);
    server.handleReadable();
    assert.equal(server.connected, false);
    server.close();
    epoll.close();
    rmSync(folder, { recursive: true });
  },
  receive: () => {
    const logs: string[] = [];
    const server = new VfioUserServer(new RecordingDevice(), { log: (text) => logs.push(text) });
    const [near, far] = socketPair();
    const client = new RawClient(near);
    server.adopt(far);
    client.send(message(1, VERSION_PAYLOAD));
    server.handleReadable();
    const event = createEventFd();
    client.send(message(8, u32s(20, 0x24, 2, 0, 2)), [event, event]);
    const held = exhaust(1);
    server.handleReadable();
    for (const fd of held) close(fd);
    assert.equal(server.connected, false);
    assert.match(
      logs.join("\n"),
      /too many files are open in this process \(EMFILE\); raise the limit/,
    );
    server.close();
    client.close();
  },
});

test("a server leaves a client waiting, with one warning, when no descriptor is free", async () => {
  assert.equal(await inChild("accept"), 0);
});

test("a server warns that no descriptor was free when it loses those of a message", async () => {
  assert.equal(await inChild("receive"), 0);
});

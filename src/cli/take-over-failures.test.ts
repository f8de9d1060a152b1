/**
 * A take-over that fails at any step: the server that was asked goes on, and frames both ways on a
 * TAP neither get lost nor come twice.
 */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { skipTap, TapPair } from "../../test/support/net.ts";
import { NumberedLoad } from "../../test/support/numbered-load.ts";
import { until } from "../../test/support/os.ts";
import {
  closeServers,
  newSocket,
  type Server,
  spawnServer,
  startServer,
} from "../../test/support/servers.ts";
import { statusOf } from "../control/client.ts";
import { FdChannel } from "../control/fd-channel.ts";
import { PROTOCOL } from "../control/hand-over.ts";
import { controlPath } from "../control/socket-path.ts";
import { close } from "../os/fd.ts";
import { accept, connectUnix, listenUnix } from "../os/unix-socket.ts";

const skip = skipTap();
const MS = 20_000;
const RATE = 1000;

let pair: TapPair;
let server: Server;
let load: NumberedLoad;

before(async () => {
  if (skip !== false) return;
  pair = new TapPair();
  server = await startServer(["--net", `tap:nic,netns=${pair.netns}`]);
  load = new NumberedLoad({ socket: server.socket, pair, rate: RATE });
  load.start();
});

after(() => {
  load?.close();
  closeServers();
  pair?.close();
});

/** A connection to the server's control socket, as one that takes over has it. */
async function connected(socket: string): Promise<FdChannel> {
  const channel = new FdChannel(connectUnix(controlPath(socket)));
  await channel.sendText(
    "GET /v1/take-over HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: bpfhv-take-over\r\n\r\n",
  );
  assert.match(await channel.receiveText(8192, MS), /^HTTP\/1\.1 101 /);
  return channel;
}

const begin = { kind: "begin", protocol: PROTOCOL, pid: 1 };

/** The NIC moves frames both ways, in the process that had it before. */
async function goesOn(): Promise<void> {
  const { toHost, toGuest } = load;
  const [out, into] = [toHost.received, toGuest.received];
  await until("frames both ways", () => toHost.received > out + 50 && toGuest.received > into + 50);
  const status = (await statusOf(server.socket)) as { pid: number };
  assert.equal(status.pid, server.child.pid);
  assert.deepEqual([toHost.duplicated, toHost.reordered], [0, 0]);
  assert.deepEqual([toGuest.duplicated, toGuest.reordered], [0, 0]);
}

/** Messages that the other process sends before it dies. */
const STEPS: Readonly<Record<string, readonly object[]>> = {
  "before it says anything": [],
  "when it knows the NICs": [begin],
  "in the rehearsal": [begin, { kind: "rehearse" }],
  "when the NIC is paused": [begin, { kind: "rehearse" }, { kind: "ready" }],
  "after it said that it failed": [begin, { kind: "ready" }, { kind: "failed", why: "a test" }],
  "after nonsense": [begin, { kind: "ready" }, { kind: "nonsense" }],
};

for (const [when, messages] of Object.entries(STEPS)) {
  test(`the old server goes on when the new one dies ${when}`, { skip }, async () => {
    const channel = await connected(server.socket);
    for (const message of messages) {
      await channel.send(message as Record<string, unknown>);
      const { kind } = message as { kind: string };
      if (!["begin", "rehearse", "ready"].includes(kind)) continue;
      const { fds, body } = await channel.receive(MS);
      assert.equal(body.kind, kind === "begin" ? "nics" : "records");
      for (const fd of fds) close(fd);
    }
    channel.close();
    await goesOn();
  });
}

test("a commit comes too late when the old server has gone on", { skip }, async () => {
  const channel = await connected(server.socket);
  await channel.send(begin);
  await channel.receive(MS);
  await channel.send({ kind: "ready" });
  for (const fd of (await channel.receive(MS)).fds) close(fd);
  const { body } = await channel.receive(MS);
  assert.deepEqual(body, { kind: "refused", why: "the other process does not answer in time" });
  await assert.rejects(channel.send({ kind: "commit" }), { name: "ChannelClosed" });
  channel.close();
  await goesOn();
});

test("one process at a time takes over, and the NIC does not change meanwhile", {
  skip,
}, async () => {
  const first = await connected(server.socket);
  await first.send(begin);
  await first.receive(MS);
  const second = await connected(server.socket);
  await second.send(begin);
  assert.match(String((await second.receive(MS)).body.why), /is taking the NICs over already/);
  second.close();
  const { changeSpec } = await import("../control/client.ts");
  await assert.rejects(changeSpec(server.socket, { mtu: 1400 }), /is taking this NIC over/);
  first.close();
  await until("changes again", () => changeSpec(server.socket, { mtu: 1400 }).catch(() => null));
  await goesOn();
});

test("another protocol is refused with what to do", { skip }, async () => {
  const channel = await connected(server.socket);
  await channel.send({ ...begin, protocol: PROTOCOL + 1 });
  const { body } = await channel.receive(MS);
  assert.match(String(body.why), /hands over by protocol \d+, and was asked for \d+/);
  channel.close();
  await goesOn();
});

interface Records {
  nics: { record: { version: number; served: { nic: { queues: unknown[] } } }; fds: number }[];
}

type Change = (records: Records, fds: number[]) => unknown;

/**
 * Stands between both ends, and changes what the old server sends once its NIC is paused.
 * @param own the socket that the new server has in the end
 */
async function between(own: string, change: Change) {
  const socket = newSocket();
  const listener = listenUnix(controlPath(socket));
  const next = spawnServer(["--take-over", socket], { socket: own });
  const fd = await until("a connection", () => {
    const fd = accept(listener);
    return fd < 0 ? null : fd;
  });
  close(listener);
  const down = new FdChannel(fd);
  const up = await connected(server.socket);
  await down.receiveText(8192, MS);
  await down.sendText("HTTP/1.1 101 Switching Protocols\r\n\r\n");
  for (let stands = false; !stands; ) {
    const asked = await down.receive(MS);
    await up.send(asked.body);
    const { body, fds } = await up.receive(MS);
    stands = asked.body.kind === "ready";
    const sent = [...fds];
    if (stands) await change(body as unknown as Records, sent);
    await down.send(body, sent);
    for (const fd of fds) close(fd);
  }
  return { next, up, down };
}

const CHANGES: Readonly<Record<string, { change: Change; says: RegExp }>> = {
  "the record is of another version": {
    change: ({ nics }) => {
      nics[0].record.version = 7;
    },
    says: /record\.version = 7: this release reads version 1/,
  },
  "a queue is missing in the record": {
    change: ({ nics }) => void nics[0].record.served.nic.queues.pop(),
    says: /nic\.queues = a list of 1: use 2/,
  },
  "a descriptor is missing": {
    change: ({ nics }, fds) => {
      fds.shift();
      nics[0].fds--;
    },
    says: /record\./,
  },
  "a descriptor is another one": {
    change: (_, fds) => {
      fds[0] = fds[fds.length - 2];
    },
    says: /record\./,
  },
};

for (const [what, { change, says }] of Object.entries(CHANGES)) {
  test(`the old server goes on when ${what}`, { skip }, async () => {
    const { next, up, down } = await between(newSocket(), change);
    await up.send((await down.receive(MS)).body);
    assert.equal(await next.ended, 1, next.err());
    down.close();
    up.close();
    assert.match(next.err(), says);
    assert.match(next.err(), /bpfhv: the other server goes on: /);
    await goesOn();
  });
}

test("the old server goes on when the new one is killed while it starts", { skip }, async () => {
  const next = spawnServer(["--take-over", server.socket], { socket: server.socket });
  await sleep(200);
  next.child.kill("SIGKILL");
  assert.equal(await next.ended, "SIGKILL");
  await goesOn();
});

test("serve says what to do when it cannot take over", { skip }, async () => {
  const nowhere = newSocket();
  const none = spawnServer(["--take-over", nowhere], { socket: nowhere });
  assert.equal(await none.ended, 1);
  assert.match(none.err(), /no server runs there: start one without --take-over/);
  const { socket } = server;
  const more = spawnServer(["--take-over", socket, "--mtu", "1400"], { socket });
  assert.equal(await more.ended, 2);
  assert.match(more.err(), /--mtu does not go with --take-over: .*bpfhv apply/);
});

test("no frame was lost in all of this", { skip }, async () => {
  await load.stop();
  assert.ok(load.sentByGuest > 200 && load.sentByHost > 200);
  assert.deepEqual(load.result, { lost: 0, duplicated: 0, reordered: 0 });
});

test("the new server goes on when the old one is killed after it handed over its state", {
  skip,
}, async () => {
  load.start();
  const { socket } = server;
  const { next, up, down } = await between(socket, async () => {
    server.child.kill("SIGKILL");
    await server.ended;
  });
  down.close();
  up.close();
  await until("the new server", async () => {
    const status = (await statusOf(socket).catch(() => null)) as { pid: number } | null;
    return status?.pid === next.child.pid;
  });
  await sleep(100);
  await load.stop();
  assert.deepEqual(load.result, { lost: 0, duplicated: 0, reordered: 0 });
});

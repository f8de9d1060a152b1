/**
 * State records of a server: a client that is handed over at any point notices nothing, and a
 * record that does not fit is refused.
 */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { dup, openFds, openFdsOnce } from "../../test/support/os.ts";
import { refuseSpoilt, restored, saved } from "../../test/support/records.ts";
import {
  message,
  pack,
  RawClient,
  RecordingDevice,
  u32s,
  VERSION_PAYLOAD,
} from "../../test/support/vfio-user.ts";
import { SavedFds } from "../memory/record.ts";
import { createEventFd, drainEventFd } from "../os/eventfd.ts";
import { close, fstat } from "../os/fd.ts";
import { createMemfd } from "../os/memory.ts";
import { socketPair } from "../os/unix-socket.ts";
import { type Random, randomFrom } from "../suite/case.ts";
import { newCounters } from "./counters.ts";
import type { ServerRecord } from "./persist.ts";
import { VfioUserServer } from "./server.ts";

const FIXTURE = new URL("../../../src/vfio-user/testdata/state-v1.json", import.meta.url);
const PAGE = 4096;
const RUNS = process.env.BPFHV_FULL === "1" ? 200 : 12;
const STEPS = 60;

const record = (server: VfioUserServer): ServerRecord => server.save(new SavedFds());

/** A client and its server; the server can be replaced by another one. */
class Bench {
  device = new RecordingDevice();
  server = new VfioUserServer(this.device);
  readonly client: RawClient;

  constructor() {
    const [a, b] = socketPair();
    this.server.adopt(a);
    this.client = new RawClient(b);
  }

  send(bytes: Buffer, fds: readonly number[] = []): void {
    this.client.send(bytes, fds);
    this.server.handleReadable();
  }

  /** Everything that the client sees of it. */
  seen(): unknown {
    return [this.client.answers(), new Uint8Array(this.device.memory.buffer)];
  }

  /** Hands the client over to another server and device. */
  replace(): void {
    const before = saved((fds) => this.server.save(fds));
    const next = new RecordingDevice();
    new Uint8Array(next.memory.buffer).set(new Uint8Array(this.device.memory.buffer));
    const server = new VfioUserServer(next);
    restored(before, (value, fds) => server.restore(value, fds));
    assert.deepEqual(record(server), before.record);
    this.server.abandon();
    this.server.close();
    this.server = server;
    this.device = next;
  }

  close(): void {
    this.client.close();
    this.server.close();
  }
}

/** Requests of every kind that changes state; most are accepted. */
function request(random: Random, files: readonly number[]): [Buffer, number[]] {
  const [memfd, ...eventFds] = files;
  const address = random(16) * PAGE;
  switch (random(9)) {
    case 0:
      return [message(2, pack([4, 32], [4, 3], [8, 0], [8, address], [8, PAGE])), [memfd]];
    case 1:
      return [message(2, pack([4, 32], [4, 1], [8, 0], [8, address], [8, PAGE])), []];
    case 2:
      return [message(3, pack([4, 24], [4, 0], [8, address], [8, PAGE])), []];
    case 3:
      return [message(8, u32s(20, 0x24, 2, random(4), 1)), [eventFds[random(eventFds.length)]]];
    case 4:
      return [message(8, u32s(20, [0x09, 0x11, 0x21][random(3)], 2, random(5), 1)), []];
    case 5:
      return [message(10, pack([8, 4], [4, 7], [4, 2], [2, [0, 6][random(2)]])), []];
    case 6:
      return [message(10, pack([8, random(64) * 4], [4, 0], [4, 4], [4, random(2 ** 31)])), []];
    case 7:
      return [message(9, pack([8, random(256)], [4, 7], [4, 4])), []];
    default:
      return [random(3) === 0 ? message(13, Buffer.alloc(0)) : message(99, u32s(1)), []];
  }
}

test(`client notices nothing when its server is replaced between and within messages`, () => {
  const before = openFds();
  let partial = 0;
  let mapped = 0;
  for (let seed = 1; seed <= RUNS; seed++) {
    const random = randomFrom(seed);
    const memfd = createMemfd("ram", 4 * PAGE, { seal: true });
    // Each bench has eventfds of its own, so that their counts can be compared.
    const benches = [new Bench(), new Bench()].map((bench) => ({
      bench,
      files: [memfd, createEventFd(), createEventFd()],
    }));
    const [plain, replaced] = benches;
    for (const { bench } of benches) bench.send(message(1, VERSION_PAYLOAD));
    for (let step = 0; step < STEPS; step++) {
      const [bytes, places] = request(random, [0, 1, 2]);
      // The first part may end anywhere; descriptors go with it.
      const cut = random(3) === 0 ? 1 + random(bytes.length - 1) : bytes.length;
      const vector = random(5);
      for (const { bench, files } of benches) {
        bench.send(
          bytes.subarray(0, cut),
          places.map((place) => files[place]),
        );
        if (bench === replaced.bench && random(2) === 0) bench.replace();
        if (bench === plain.bench && cut < bytes.length) partial++;
        if (cut < bytes.length) bench.send(bytes.subarray(cut));
        bench.server.fire(vector);
      }
      assert.deepEqual(replaced.bench.seen(), plain.bench.seen(), `seed ${seed}, step ${step}`);
    }
    const counts = benches.map(({ files }) => files.slice(1).map(drainEventFd));
    assert.deepEqual(counts[1], counts[0], "interrupts");
    assert.deepEqual(record(replaced.bench.server), record(plain.bench.server));
    mapped += plain.bench.server.dma.ranges.length;
    for (const { bench, files } of benches) {
      bench.close();
      for (const fd of files.slice(1)) close(fd);
    }
    close(memfd);
  }
  assert.ok(partial > RUNS && mapped > RUNS, "messages were cut, and memory was mapped");
  assert.equal(openFdsOnce(before), before, "no descriptor left");
});

test("device hears of its machine when a client is handed over", () => {
  const bench = new Bench();
  const memfd = createMemfd("ram", 4 * PAGE, { seal: true });
  bench.send(message(1, VERSION_PAYLOAD));
  bench.send(message(2, pack([4, 32], [4, 3], [8, 0], [8, PAGE], [8, PAGE])), [memfd]);
  bench.send(message(10, pack([8, 4], [4, 7], [4, 2], [2, 6])));
  const { device } = bench;
  device.events.length = 0;
  bench.replace();
  assert.deepEqual(bench.device.events, ["attached", "mapped 4096", "busMaster true"]);
  // In this order: bus mastering off, full stop, memory gone.
  const stopped = ["busMaster false", "reset", "unmapping 4096", "detached"];
  assert.deepEqual(device.events, stopped);
  bench.close();
  close(memfd);
});

/** A server with everything that a record can hold. */
function example(files: readonly number[]): Bench {
  const bench = new Bench();
  const [memfd, first, second] = files;
  bench.send(message(1, VERSION_PAYLOAD));
  bench.send(message(2, pack([4, 32], [4, 3], [8, 0], [8, PAGE], [8, PAGE])), [memfd]);
  bench.send(message(8, u32s(20, 0x24, 2, 0, 1)), [first]);
  bench.send(message(8, u32s(20, 0x24, 2, 3, 1)), [second]);
  bench.send(message(8, u32s(20, 0x09, 2, 3, 1)));
  bench.send(message(10, pack([8, 4], [4, 7], [4, 2], [2, 6])));
  bench.send(message(99, u32s(1)));
  bench.server.fire(3);
  bench.send(message(8, u32s(20, 0x24, 2, 1, 1)).subarray(0, 20), [second]);
  return bench;
}

function withExample(action: (bench: Bench, files: number[]) => void): void {
  const before = openFds();
  const files = [createMemfd("ram", 4 * PAGE, { seal: true }), createEventFd(), createEventFd()];
  const bench = example(files);
  try {
    action(bench, files);
  } finally {
    bench.close();
    for (const fd of files) close(fd);
  }
  assert.equal(openFdsOnce(before), before, "no descriptor left");
}

test("spoilt records of a server are refused, and change nothing", () => {
  withExample((bench) => {
    const { record: value, fds } = saved((list) => bench.server.save(list));
    const refused = refuseSpoilt(value, fds, (wrong, claimed) => {
      const server = new VfioUserServer(new RecordingDevice());
      const fresh = record(server);
      try {
        server.restore(wrong, claimed);
        return record(server);
      } catch (error) {
        assert.deepEqual(record(server), fresh);
        throw error;
      } finally {
        server.abandon();
        server.close();
      }
    });
    assert.ok(refused > 1000, `${refused} forms were refused`);
    for (const fd of fds) close(fd);
  });
});

test("record of version 1 restores the server that it was saved from", () => {
  withExample((bench, files) => {
    const { fds, record: own } = saved((list) => bench.server.save(list));
    const fixture = JSON.parse(readFileSync(FIXTURE, "utf8")) as ServerRecord;
    const { dev, ino } = fstat(files[0]);
    // The kernel chooses inodes.
    const memory = {
      ...fixture.memory,
      files: [{ ...fixture.memory.files[0], id: `${dev}:${ino}` }],
    };
    const server = new VfioUserServer(new RecordingDevice());
    restored({ record: { ...fixture, memory }, fds }, (value, claimed) =>
      server.restore(value, claimed),
    );
    // Counters that are newer than the record begin at 0.
    const counters = { ...newCounters(), ...fixture.counters };
    assert.deepEqual(record(server), { ...fixture, memory, counters });
    assert.deepEqual(record(server), own, "today's server saves the same");
    server.abandon();
    server.close();
  });
});

test("descriptors of the wrong kind are refused when a client is handed over", () => {
  withExample((bench, files) => {
    const { record: value, fds } = saved((list) => bench.server.save(list));
    const { connection, vectors } = value as ServerRecord;
    for (const [place, message] of [
      [connection, /connection: the descriptor is not a socket/],
      [vectors.vectors[0].fd, /vectors\[0\]\.fd = \d: the descriptor is not an eventfd/],
    ] as const) {
      const wrong = fds.map(dup);
      close(wrong[place]);
      wrong[place] = dup(files[0]);
      const server = new VfioUserServer(new RecordingDevice());
      const restore = () =>
        restored({ record: value, fds: wrong }, (record, claimed) =>
          server.restore(record, claimed),
        );
      assert.throws(restore, { code: "RECORD", message });
      assert.equal(server.connected, false);
      server.close();
      for (const fd of wrong) close(fd);
    }
    for (const fd of fds) close(fd);
  });
});

/** Ports of a NIC that are exchanged for others of any kind while packets flow both ways. */
import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, test } from "node:test";
import { Bench } from "../../test/support/guest.ts";
import { isTestFrame, recordsOf, skipTap, TapPair, testFrame } from "../../test/support/net.ts";
import { Loop } from "../engine/loop.ts";
import type { QueuePair } from "../engine/pair.ts";
import {
  DROP_COUNTERS,
  DROP_PORT,
  DROP_SPOOFED,
  PACKETS,
  QUEUE_COUNTERS,
} from "../memory/counters.ts";
import { parsePort } from "../net/create.ts";
import { parsePolicy } from "../net/policies/index.ts";
import { WorkerPorts } from "./worker-ports.ts";

const folder = mkdtempSync(join(tmpdir(), "bpfhv-ports-"));
after(() => rmSync(folder, { recursive: true }));
const capture = join(folder, "out.pcap");

/** A guest whose port is that of a worker. */
class Rig {
  readonly bench = new Bench();
  readonly pair: QueuePair;
  readonly ports: WorkerPorts;
  readonly loop: Loop;
  /** Numbers of the frames that the guest received, in order. */
  readonly received: number[] = [];
  sent = 0;

  constructor(port: string) {
    this.bench.driver.open();
    [this.pair] = this.bench.local.pairs;
    this.ports = new WorkerPorts({ port: parsePort(port), pairs: 1, metadata: false });
    this.pair.setPort(this.ports.ports[0]);
    const control = { timeoutMs: 0, register: () => {}, handle: () => 0 };
    this.loop = new Loop({ pairs: [this.pair], control });
  }

  send(count: number): void {
    for (let n = 0; n < count; n++) {
      if (this.bench.driver.send(0, testFrame(this.sent, 60 + (this.sent % 900)))) this.sent++;
    }
  }

  take(most?: number): void {
    const took = (frame: Uint8Array): void => {
      if (!isTestFrame(frame)) return;
      this.received.push(new DataView(frame.buffer, frame.byteOffset).getUint32(14));
    };
    this.bench.driver.receive(0, took, most);
    this.bench.driver.clean(0);
  }

  exchange(port: string): void {
    this.ports.exchange(parsePort(port), [this.pair], this.loop);
  }

  /** Until nothing moves. */
  settle(): void {
    for (let idle = 0; idle < 3; idle++) {
      if (this.loop.turn() > 0) idle = 0;
      this.take();
    }
  }

  close(): void {
    this.bench.nic.detach();
    this.ports.close();
    this.loop.close();
  }
}

const PHASES = 60;
/** Above the numbers of what the guest sends. */
const FROM_OUTSIDE = 1_000_000;

describe("ports of a running NIC", { skip: skipTap() }, () => {
  test("are exchanged for any other kind, and lose nothing that was accepted", () => {
    const pair = new TapPair();
    const kinds = ["sink", "loopback", "source:rate=1", "null", `pcap:write=${capture}`];
    kinds.push(`tap:nic,netns=${pair.netns}`);
    const rig = new Rig("loopback");
    const { tx, rx } = rig.pair;
    const sum = { loopback: 0, tap: 0, given: 0, captured: 0, nowhere: 0 };
    let seen = 0;
    let kind = "loopback";
    const consumed = (): number => tx.counters[PACKETS];
    for (let phase = 0; phase < PHASES; phase++) {
      const before = consumed();
      for (let turn = 0; turn < 4; turn++) {
        rig.send(20 + phase);
        if (kind.startsWith("tap")) {
          const count = 3 + (phase % 5);
          for (let n = 0; n < count; n++) {
            if (pair.give(testFrame(FROM_OUTSIDE + sum.given, 100)) > 0) sum.given++;
          }
        }
        rig.loop.turn();
        // Slower than the ring fills, so that ports hold packets when they are exchanged.
        rig.take(8);
        sum.tap += pair.take().length;
      }
      // The next exchange is as if it came much later: the port before has left.
      for (let turn = 0; turn < 4; turn++) {
        rig.loop.turn();
        rig.take();
        sum.tap += pair.take().length;
      }
      const moved = consumed() - before;
      if (kind === "loopback") sum.loopback += moved;
      else if (kind === "null" || kind === "sink" || kind.startsWith("source"))
        sum.nowhere += moved;
      // Every kind follows every other one.
      const next = kinds[(kinds.indexOf(kind) + 1 + (phase % (kinds.length - 1))) % kinds.length];
      rig.exchange(next);
      if (kind.startsWith("pcap")) {
        const records = recordsOf(readFileSync(capture)).filter(isTestFrame).length;
        assert.equal(records, moved, `capture of phase ${phase}`);
        sum.captured += records;
      }
      if (next.startsWith("tap")) pair.waitUntilForwarding();
      kind = next;
      seen++;
    }
    const before = consumed();
    rig.exchange("sink");
    rig.settle();
    sum.nowhere += consumed() - before;
    sum.tap += pair.take().length;
    assert.equal(seen, PHASES);
    assert.equal(
      sum.loopback + sum.tap + sum.captured + sum.nowhere,
      rig.sent,
      "all went somewhere",
    );
    const own = rig.received.filter((number) => number < FROM_OUTSIDE);
    assert.equal(own.length, sum.loopback, "all came back");
    assert.equal(rig.received.length - own.length, sum.given, "all came in");
    for (const name of DROP_COUNTERS) {
      const i = QUEUE_COUNTERS.findIndex(([each]) => each === name);
      assert.equal(rx.counters[i], 0, `rx ${name}`);
      if (name !== "dropPort") assert.equal(tx.counters[i], 0, `tx ${name}`);
    }
    rig.close();
    pair.close();
  });
});

test("an old port is closed, and what it holds is counted, when the guest has no buffers", async () => {
  const rig = new Rig("loopback");
  for (let n = 0; n < 8; n++) {
    rig.send(100);
    rig.loop.turn();
    rig.bench.driver.clean(0);
  }
  const { rx, tx } = rig.pair;
  rig.exchange("sink");
  const held = tx.counters[PACKETS] - rx.counters[PACKETS] - tx.counters[DROP_PORT];
  assert.ok(held > 100);
  assert.equal(rig.pair.rx.counters[DROP_PORT], 0);
  await new Promise((resolve) => setTimeout(resolve, 1100));
  rig.ports.notices();
  assert.equal(rx.counters[DROP_PORT], held);
  rig.settle();
  assert.equal(rig.received.length, rx.counters[PACKETS]);
  rig.close();
});

test("a link that is held down passes nothing, and the port goes on when it is up again", () => {
  const rig = new Rig("loopback");
  const { tx } = rig.pair;
  rig.send(10);
  rig.settle();
  rig.ports.setLink(false, [rig.pair]);
  assert.equal(rig.pair.port.linkUp, false);
  rig.send(10);
  rig.settle();
  assert.deepEqual([rig.received.length, tx.counters[DROP_PORT]], [10, 10]);
  rig.exchange("loopback");
  assert.equal(rig.pair.port.linkUp, false, "of another port, too");
  rig.ports.setLink(true, [rig.pair]);
  assert.equal(rig.pair.port.linkUp, true);
  rig.send(10);
  rig.settle();
  assert.equal(rig.received.length, 20);
  rig.close();
});

test("policies are replaced while packets flow, and the port stays", () => {
  const rig = new Rig("loopback");
  const [{ tx }] = rig.ports.counters;
  const spoof = (mac: string) => [parsePolicy(`anti-spoof:mac=${mac}`, { mac: null })];
  rig.send(10);
  rig.loop.turn();
  rig.ports.setPolicies(spoof("52:54:00:00:00:01"), [rig.pair]);
  rig.send(10);
  rig.settle();
  assert.deepEqual([rig.received.length, tx[DROP_SPOOFED]], [10, 10]);
  rig.ports.setPolicies(spoof("52:54:00:aa:bb:cc"), [rig.pair]);
  rig.send(10);
  rig.settle();
  rig.ports.setPolicies([], [rig.pair]);
  rig.send(10);
  rig.settle();
  assert.deepEqual([rig.received.length, tx[DROP_SPOOFED]], [30, 10]);
  rig.close();
});

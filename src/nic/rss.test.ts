/** Receive side scaling: which queue a flow arrives on, its hash, and requests that are refused. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { openWith, write64 } from "../../test/support/abilities.ts";
import { Bench } from "../../test/support/guest.ts";
import {
  ABILITY,
  BAR_REGISTERS,
  CONTEXT,
  METADATA,
  METADATA_HASH,
  METADATA_HASH_PORTS,
  REG,
  RSS_FLAG,
  RSS_RESULT,
} from "../abi/index.ts";
import { FORMATS } from "../devices/registry.ts";
import { DROP_STOPPED, PACKETS } from "../memory/counters.ts";
import { FlowHash } from "../memory/index.ts";
import { readBar } from "./bars.ts";
import { restoreNic, saveNic } from "./persist.ts";

const KEY = Array.from({ length: 40 }, (_, i) => (i * 37 + 11) & 0xff);
const TYPES = 63;
const PAIRS = 4;
const { STEER, REPORT } = RSS_FLAG;

interface Block {
  readonly flags?: number;
  readonly types?: number;
  readonly table?: readonly number[];
  readonly entries?: number;
  readonly zero?: number;
}

function rssBench(options: ConstructorParameters<typeof Bench>[0] = {}): Bench {
  return openWith(ABILITY.RSS, { pairs: PAIRS, ...options });
}

/** @returns flags, result and entries as RSS_STATE has them */
function request(bench: Bench, { flags = STEER, types = TYPES, table = [], ...rest }: Block) {
  const at = bench.memory.allocate(48 + 256);
  const bytes = bench.memory.bytes(at, 48 + 256);
  const words = [flags, rest.entries ?? table.length, types, rest.zero ?? 0];
  bytes.set(new Uint8Array(Uint16Array.from(words).buffer));
  bytes.set(KEY, 8);
  bytes.set(new Uint8Array(Uint16Array.from(table).buffer), 48);
  write64(bench, REG.RSS_LO, at);
  return stateOf(bench);
}

function stateOf({ nic }: Bench): [flags: number, result: number, entries: number] {
  const state = readBar(nic, BAR_REGISTERS, REG.RSS_STATE, 4);
  return [state & 0xff, (state >> 8) & 0xff, state >>> 16];
}

/** A UDP packet of a flow, with a number; as long as these say. */
function packet(flow: number, number: number): Uint8Array {
  const frame = new Uint8Array(60 + ((flow * 7 + number * 131) % 1400));
  const view = new DataView(frame.buffer);
  frame.set([0x52, 0x54, 0, 1, 2, 3]);
  view.setUint16(12, 0x0800);
  frame.set([0x45, 0, 0, 46, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2], 14);
  view.setUint16(34, 1000 + flow);
  view.setUint16(36, 7);
  view.setUint32(42, flow);
  view.setUint32(46, number);
  frame.fill(number & 0xff, 50);
  return frame;
}

/** Of all queues: which flow's packet arrived where, in order. */
function take(bench: Bench): { queue: number; flow: number; number: number }[] {
  return bench.driver.rx.flatMap((_, queue) =>
    bench.take(queue).map((frame) => {
      const view = new DataView(frame.buffer, frame.byteOffset);
      const [flow, number] = [view.getUint32(42), view.getUint32(46)];
      assert.deepEqual(Buffer.from(frame), Buffer.from(packet(flow, number)), "unchanged");
      return { queue, flow, number };
    }),
  );
}

const hash = (flow: number): number => {
  const frame = packet(flow, 0);
  return new FlowHash(KEY, TYPES).of(frame, 0, frame.length);
};

const TABLE = [3, 1, 0, 2, 1, 3, 3, 0];

for (const device of FORMATS) {
  test(`${device.name}: packets arrive once, in order, on the queue of their flow's entry`, () => {
    const bench = rssBench({ device, config: { rxBufs: 64, txBufs: 64 } });
    const next = new Map<number, number>();
    const got: ReturnType<typeof take> = [];
    const expected = new Map<number, number[]>();
    let seed = 3;
    const random = (below: number): number => {
      seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
      return Math.floor((seed / 2 ** 32) * below);
    };
    assert.deepEqual(request(bench, { table: TABLE }), [STEER, RSS_RESULT.OK, TABLE.length]);
    for (let n = 0; n < 3000; n++) {
      const flow = random(40);
      const number = next.get(flow) ?? 0;
      next.set(flow, number + 1);
      // A port has a flow's packets in order, whatever queue they are for.
      bench.ports[flow % PAIRS].incoming.push(packet(flow, number));
      expected.set(flow, [...(expected.get(flow) ?? []), number]);
      if (random(20) === 0) bench.local.turn();
      if (random(60) === 0) got.push(...take(bench));
      if (random(50) === 0) for (const pair of bench.nic.pairs) pair.armKicks();
    }
    for (let n = 0; n < 100; n++) {
      bench.settle();
      got.push(...take(bench));
    }
    const queues = new Set<number>();
    for (const [flow, numbers] of expected) {
      const arrived = got.filter((each) => each.flow === flow);
      assert.deepEqual(
        arrived.map(({ number }) => number),
        numbers,
        `flow ${flow}`,
      );
      for (const { queue } of arrived) {
        queues.add(queue);
        assert.equal(queue, TABLE[hash(flow) & (TABLE.length - 1)], `queue of flow ${flow}`);
      }
    }
    assert.equal(queues.size, PAIRS, "every queue had packets");
    const moved = bench.nic.pairs.reduce((sum, { rx }) => sum + rx.counters[PACKETS], 0);
    assert.equal(moved, 3000);
    bench.close();
  });
}

test("port chooses the queue when there is no table, and again when the table is taken away", () => {
  const bench = rssBench();
  const everywhere = (): number[] => {
    for (let flow = 0; flow < 32; flow++) bench.ports[2].incoming.push(packet(flow, 0));
    bench.settle();
    return [...new Set(take(bench).map(({ queue }) => queue))];
  };
  assert.deepEqual(everywhere(), [2]);
  request(bench, { flags: REPORT });
  assert.deepEqual(everywhere(), [2], "hashes only");
  request(bench, { table: [1] });
  assert.deepEqual(everywhere(), [1]);
  request(bench, { table: [3, 0] });
  assert.deepEqual(everywhere(), [0, 3]);
  write64(bench, REG.RSS_LO, 0);
  assert.deepEqual(everywhere(), [2], "address 0");
  request(bench, { table: [1] });
  bench.driver.close();
  bench.nic.reset();
  assert.deepEqual(stateOf(bench), [0, RSS_RESULT.OK, 0], "reset");
  bench.close();
});

test("packets wait for a queue without buffers, and are dropped when its ring is broken", () => {
  const bench = rssBench({ config: { rxBufs: 16, txBufs: 16 } });
  request(bench, { table: [1] });
  for (let n = 0; n < 100; n++) bench.ports[0].incoming.push(packet(1, n));
  bench.settle();
  assert.equal(bench.nic.pairs[1].rx.counters[PACKETS], 16);
  assert.equal(bench.nic.pairs[0].canReceive, false, "the port is not read meanwhile");
  assert.equal(bench.nic.pairs[0].armKicks(), false, "no work: the loop may sleep");
  const got: number[] = [];
  for (let n = 0; n < 20; n++) {
    got.push(...take(bench).map(({ number }) => number));
    bench.settle();
  }
  assert.deepEqual(got, [...Array(100).keys()]);
  // sring's producer index: far ahead.
  new DataView(bench.driver.contextOf(1).buffer).setUint32(
    bench.driver.contextOf(1).byteOffset + 2096,
    100_000,
    true,
  );
  for (let n = 0; n < 50; n++) bench.ports[0].incoming.push(packet(1, n));
  for (let n = 0; n < 20; n++) bench.local.turn();
  assert.equal(bench.nic.pairs[1].rx.counters[DROP_STOPPED], 50);
  request(bench, { table: [2] });
  bench.ports[0].incoming.push(packet(1, 0));
  bench.settle();
  assert.deepEqual(take(bench), [{ queue: 2, flow: 1, number: 0 }], "the others work");
  bench.close();
});

test("hash comes with a packet when the driver asks for it and the ring has room", () => {
  const device = FORMATS.find(({ name }) => name === "sring_gso");
  for (const table of [[], [0], [1]]) {
    const bench = rssBench({ device: device ?? assert.fail(), pairs: 2 });
    const seen = (): number[] => {
      bench.ports[0].incoming.push(packet(5, 1));
      bench.settle();
      const found: number[] = [];
      for (const queue of [0, 1]) {
        bench.driver.receive(queue, (_, metadata) => {
          const flags = metadata[METADATA.flags.offset - METADATA.flags.offset];
          const low = metadata[2] | (metadata[3] << 8);
          const context = bench.driver.contextOf(queue);
          const at = CONTEXT.hash_high.offset;
          found.push(flags, ((context[at] << 16) | (context[at + 1] << 24) | low) >>> 0);
        });
      }
      return found;
    };
    const flags = table.length === 0 ? REPORT : STEER | REPORT;
    assert.deepEqual(seen(), [0, 0], "not asked for");
    assert.equal(request(bench, { flags, table })[1], RSS_RESULT.OK);
    assert.deepEqual(seen(), [METADATA_HASH | METADATA_HASH_PORTS, hash(5) >>> 0]);
    assert.equal(request(bench, { flags, table, types: 1 })[1], RSS_RESULT.OK);
    assert.equal(seen()[0], METADATA_HASH, "of the addresses");
    if (table.length > 0) {
      request(bench, { flags: STEER, table });
      assert.deepEqual(seen(), [0, 0], "asked for no more");
    }
    bench.close();
  }
});

test("request is refused whole and the settings before stay when the block is wrong", () => {
  const bench = rssBench();
  request(bench, { table: TABLE });
  const wrong: Block[] = [
    { flags: 4, table: [0] },
    { flags: 0xffff, table: [0] },
    { types: 64, table: [0] },
    { zero: 1, table: [0] },
    { table: [] },
    { table: [0, 1, 2] },
    { table: [0], entries: 256 },
    { table: [0], entries: 0xffff },
    { flags: REPORT, table: [0] },
    { table: [0, PAIRS] },
    { table: [0, 0xffff] },
  ];
  for (const [i, block] of wrong.entries()) {
    const after = request(bench, block);
    assert.deepEqual(after, [STEER, RSS_RESULT.INVALID, TABLE.length], JSON.stringify(block));
    assert.equal(bench.nic.refusals.counts.rss, i + 1);
  }
  assert.match(bench.nic.refusals.latest.rss ?? "", /entry 1 is queue 65535: use 0 to 3/);
  for (const address of [2 ** 64 - 4096, 2 ** 53, 1]) {
    write64(bench, REG.RSS_LO, address);
    assert.equal(stateOf(bench)[1], RSS_RESULT.INVALID, `block at ${address}`);
  }
  bench.ports[0].incoming.push(packet(9, 0));
  bench.settle();
  assert.equal(take(bench)[0].queue, TABLE[hash(9) & 7]);
  bench.close();
  const plain = new Bench({ pairs: 2 });
  plain.driver.open();
  assert.deepEqual(request(plain, { table: [1] }), [0, RSS_RESULT.OK, 0]);
  assert.match(plain.nic.refusals.last, /without the ability RSS/);
  plain.close();
});

test("settings go on when the NIC is restored from a record", () => {
  const bench = rssBench();
  request(bench, { table: TABLE });
  const record: unknown = JSON.parse(JSON.stringify(saveNic(bench.nic)));
  const next = rssBench();
  next.nic.reset();
  restoreNic(next.nic, record);
  assert.deepEqual(stateOf(next), [STEER, RSS_RESULT.OK, TABLE.length]);
  bench.close();
  next.close();
});

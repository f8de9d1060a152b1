/** The receive filter: what the guest asks for, what it gets, and requests that are refused. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { openWith, write64 } from "../../test/support/abilities.ts";
import { Bench } from "../../test/support/guest.ts";
import {
  ABILITY,
  BAR_REGISTERS,
  FILTER_MODE,
  FILTER_RESULT,
  MAX_FILTER_ADDRESSES,
  REG,
} from "../abi/index.ts";
import { FORMATS } from "../devices/registry.ts";
import { FILTERED, newQueueCounters } from "../memory/counters.ts";
import { SpoofGuard } from "../net/policies/spoof-guard.ts";
import { readBar, writeBar } from "./bars.ts";
import { restoreNic, saveNic } from "./persist.ts";

const OWN = "52:54:00:01:02:03";
const OTHER = "52:54:00:aa:bb:cc";
const GROUP = "33:33:00:00:00:01";
const BROADCAST = "ff:ff:ff:ff:ff:ff";

const bytesOf = (mac: string): Uint8Array =>
  Uint8Array.from(Buffer.from(mac.replaceAll(":", ""), "hex"));

function frameTo(mac: string): Uint8Array {
  const frame = new Uint8Array(60);
  frame.set(bytesOf(mac));
  return frame;
}

/** A bench whose driver acknowledged FILTER. */
function filterBench(options: ConstructorParameters<typeof Bench>[0] = {}): Bench {
  return openWith(ABILITY.FILTER, options);
}

interface Block {
  readonly mode?: number;
  readonly count?: number;
  readonly addresses?: readonly string[];
  /** Changes the block's bytes. */
  readonly spoil?: (bytes: DataView) => void;
}

/** Asks for a filter. @returns mode, result and number of addresses as FILTER_STATE has them */
function request(bench: Bench, { mode = FILTER_MODE.LIST, addresses = [OWN], ...rest }: Block) {
  const size = 8 + 8 * Math.max(addresses.length, 1);
  const at = bench.memory.allocate(size);
  const bytes = bench.memory.bytes(at, size);
  const view = new DataView(bytes.buffer, bytes.byteOffset, size);
  view.setUint16(0, mode, true);
  view.setUint16(2, rest.count ?? addresses.length, true);
  for (const [i, mac] of addresses.entries()) bytes.set(bytesOf(mac), 8 + 8 * i);
  rest.spoil?.(view);
  write64(bench, REG.FILTER_LO, at);
  return stateOf(bench);
}

function stateOf({ nic }: Bench): [mode: number, result: number, count: number] {
  const state = readBar(nic, BAR_REGISTERS, REG.FILTER_STATE, 4);
  return [state & 0xff, (state >> 8) & 0xff, state >>> 16];
}

/** Sends a frame to each address. @returns the addresses that the guest received */
function received(bench: Bench, ...macs: string[]): string[] {
  for (const mac of macs) bench.ports[0].incoming.push(frameTo(mac));
  const got: string[] = [];
  for (let turn = 0; turn < 8; turn++) {
    bench.settle();
    bench.driver.receive(0, (frame) => {
      got.push(
        Buffer.from(frame.subarray(0, 6))
          .toString("hex")
          .replace(/..(?=.)/g, "$&:"),
      );
    });
  }
  return got;
}

const ALL = [OTHER, OWN, GROUP, BROADCAST, OTHER, OWN];

for (const device of FORMATS) {
  test(`${device.name}: guest gets the frames that its filter names, and the rest take no buffer`, () => {
    const bench = filterBench({ device });
    assert.deepEqual(received(bench, ...ALL), ALL, "before a request");
    assert.deepEqual(request(bench, {}), [FILTER_MODE.LIST, FILTER_RESULT.OK, 1]);
    assert.deepEqual(received(bench, ...ALL), [OWN, BROADCAST, OWN]);
    request(bench, { addresses: [OWN, GROUP, OTHER] });
    assert.deepEqual(received(bench, ...ALL), ALL);
    request(bench, { mode: FILTER_MODE.ALL_MULTICAST });
    assert.deepEqual(received(bench, ...ALL), [OWN, GROUP, BROADCAST, OWN]);
    request(bench, { mode: FILTER_MODE.ALL });
    assert.deepEqual(received(bench, ...ALL), ALL);
    assert.equal(bench.nic.pairs[0].rx.counters[FILTERED], 3 + 2);
    request(bench, {});
    const flood = Array.from({ length: 1000 }, () => OTHER);
    assert.deepEqual(received(bench, ...flood, OWN), [OWN]);
    write64(bench, REG.FILTER_LO, 0);
    assert.deepEqual(received(bench, ...ALL), ALL, "after the filter was removed");
    bench.close();
  });
}

test("every listed address passes when the list is full of addresses that collide", () => {
  const bench = filterBench();
  const many = Array.from({ length: MAX_FILTER_ADDRESSES - 1 }, (_, i) => {
    // Equal but for the bits that the table's hash cancels: first two and last two bytes.
    const word = (0x0200 + i).toString(16).padStart(4, "0");
    const pair = `${word.slice(0, 2)}:${word.slice(2)}`.replace(/^(.)[13579bdf]/, "$10");
    return `${pair}:00:00:${pair}`;
  });
  const list = [...new Set(many)];
  request(bench, { addresses: [OWN, ...list] });
  for (const mac of list) assert.deepEqual(received(bench, mac, OTHER), [mac]);
  bench.close();
});

test("request is refused whole and the filter before stays when the block is wrong", () => {
  const bench = filterBench();
  request(bench, { addresses: [OWN, GROUP] });
  const wrong: Block[] = [
    { mode: 2 },
    { mode: 0xffff },
    { count: 0 },
    { count: MAX_FILTER_ADDRESSES + 1 },
    { count: 0xffff },
    { addresses: [GROUP] },
    { addresses: ["00:00:00:00:00:00"] },
    { spoil: (block) => block.setUint32(4, 1) },
    { spoil: (block) => block.setUint8(14, 1) },
    { spoil: (block) => block.setUint8(15, 1) },
  ];
  for (const [i, block] of wrong.entries()) {
    const after = request(bench, block);
    assert.deepEqual(after, [FILTER_MODE.LIST, FILTER_RESULT.INVALID, 2], JSON.stringify(block));
    assert.equal(bench.nic.refusals.counts.filter, i + 1);
  }
  for (const address of [2 ** 64 - 4096, 2 ** 53, 1, 2 ** 40]) {
    write64(bench, REG.FILTER_LO, address);
    assert.equal(stateOf(bench)[1], FILTER_RESULT.INVALID, `block at ${address}`);
  }
  assert.match(bench.nic.refusals.latest.filter ?? "", /no memory is mapped/);
  assert.deepEqual(received(bench, ...ALL), [OWN, GROUP, BROADCAST, OWN]);
  assert.deepEqual(request(bench, {}), [FILTER_MODE.LIST, FILTER_RESULT.OK, 1]);
  bench.close();
});

test("filter is not used while the host has it off, and is when it is on again", () => {
  const bench = filterBench();
  assert.deepEqual(request(bench, {}), [FILTER_MODE.LIST, FILTER_RESULT.OK, 1]);
  const filtered = received(bench, ...ALL);
  bench.nic.filtered = false;
  bench.nic.useSettings();
  assert.deepEqual(received(bench, ...ALL), ALL);
  bench.nic.filtered = true;
  bench.nic.useSettings();
  assert.deepEqual(received(bench, ...ALL), filtered);
  assert.ok(filtered.length < ALL.length);
  bench.close();
});

test("filter is refused without the ability, and ends with the ability and with a reset", () => {
  const plain = new Bench();
  plain.driver.open();
  assert.deepEqual(request(plain, {}), [FILTER_MODE.ALL, FILTER_RESULT.OK, 0]);
  assert.match(plain.nic.refusals.last, /without the ability FILTER/);
  assert.deepEqual(received(plain, ...ALL), ALL);
  plain.close();
  const bench = filterBench();
  request(bench, {});
  const { abilities } = bench.nic.state;
  bench.driver.close();
  writeBar(bench.nic, BAR_REGISTERS, REG.EXT_ACK, 4, abilities & ~ABILITY.FILTER);
  bench.driver.open();
  assert.deepEqual(received(bench, ...ALL), ALL);
  bench.nic.reset();
  assert.deepEqual(stateOf(bench), [FILTER_MODE.ALL, FILTER_RESULT.OK, 0]);
  bench.close();
});

test("own address that anti-spoof would drop is refused, the NIC's own is not", () => {
  const bench = filterBench();
  const { nic } = bench;
  const rules = { kind: "anti-spoof", mac: bytesOf(OTHER), vlans: null } as const;
  nic.pairs[0].port = new SpoofGuard(nic.pairs[0].port, rules, newQueueCounters());
  assert.deepEqual(request(bench, { addresses: ["52:54:00:00:00:77"] }), [
    ...[FILTER_MODE.ALL, FILTER_RESULT.ADDRESS, 0],
  ]);
  assert.equal(nic.refusals.last, `address 52:54:00:00:00:77: --anti-spoof allows ${OTHER} only`);
  assert.equal(request(bench, { addresses: [OTHER] })[1], FILTER_RESULT.OK);
  assert.equal(request(bench, { addresses: [OWN, GROUP] })[1], FILTER_RESULT.OK);
  bench.close();
});

test("filter goes on when the NIC is restored from a record", () => {
  const bench = filterBench();
  request(bench, { addresses: [OWN, GROUP] });
  const record: unknown = JSON.parse(JSON.stringify(saveNic(bench.nic)));
  const next = filterBench();
  next.nic.reset();
  restoreNic(next.nic, record);
  assert.deepEqual(stateOf(next), [FILTER_MODE.LIST, FILTER_RESULT.OK, 2]);
  bench.close();
  next.close();
});

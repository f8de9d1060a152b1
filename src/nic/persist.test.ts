/**
 * State records of a NIC: a guest whose NIC is replaced at any point loses and repeats no packet,
 * and a record that does not fit is refused.
 */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { frameOf, numberOf, TestPort } from "../../test/support/guest.ts";
import { refuseSpoilt } from "../../test/support/records.ts";
import { BAR_REGISTERS, FEATURES, PRIVATE_OFFSET, type ProgramForm, REG } from "../abi/index.ts";
import type { RingFormat } from "../devices/format.ts";
import { FORMATS } from "../devices/registry.ts";
import { sring } from "../devices/sring/host.ts";
import { SRING } from "../devices/sring/layout.ts";
import { GuestDriver } from "../guest/driver.ts";
import { LocalMemory } from "../guest/memory.ts";
import { RING_ERRORS } from "../memory/counters.ts";
import { type Random, randomFrom } from "../suite/case.ts";
import { LocalNic } from "./local.ts";
import { type NicRecord, restoreNic, saveNic } from "./persist.ts";

const FIXTURES = new URL("../../../src/nic/testdata/state-v1.json", import.meta.url);
const FULL = process.env.BPFHV_FULL === "1";
const SEEDS = FULL ? 60 : 3;
const STEPS = 150;
const BUFS = 16;

interface MachineOptions {
  readonly device: RingFormat;
  readonly form?: ProgramForm;
  readonly pairs?: number;
}

/** A guest with a driver, and a NIC that another one can take the place of. */
class Machine {
  readonly memory = new LocalMemory(4 << 20);
  readonly ports: readonly TestPort[];
  readonly driver: GuestDriver;
  readonly device: RingFormat;
  local: LocalNic;
  /** Numbers of frames, as they were sent by each end and as they arrived at the other. */
  readonly traffic: { sent: number[]; given: number[]; received: number[] }[];
  #next = 0;

  constructor({ device, form = "helperfree", pairs = 1 }: MachineOptions) {
    this.device = device;
    this.ports = Array.from({ length: pairs }, () => new TestPort());
    this.traffic = this.ports.map(() => ({ sent: [], given: [], received: [] }));
    this.local = this.#newNic();
    const transport = {
      read: (bar: number, offset: number) => this.local.read(bar, offset),
      write: (bar: number, offset: number, value: number) => this.local.write(bar, offset, value),
    };
    const features = device.features & ~(FEATURES.TSO_V4 | FEATURES.TSO_V6 | FEATURES.UFO);
    this.driver = new GuestDriver(transport, this.memory, { form, features });
  }

  #newNic(): LocalNic {
    const { device, memory, ports } = this;
    const config = { rxBufs: BUFS, txBufs: BUFS };
    return new LocalNic({ device, memory, ports, config });
  }

  get nic() {
    return this.local.nic;
  }

  /** Restores another NIC from what this one saves, and ends this one. */
  replace(): void {
    const record: unknown = JSON.parse(JSON.stringify(saveNic(this.nic)));
    const next = this.fresh(record);
    assert.deepEqual(JSON.parse(JSON.stringify(saveNic(next.nic))), record);
    this.nic.detach();
    this.local = next;
  }

  /** A NIC as another process has it before its state is restored: the machine is attached. */
  fresh(record: unknown): LocalNic {
    const next = this.#newNic();
    try {
      const state = (record as { state?: { busMaster?: unknown } } | null | undefined)?.state;
      if (state?.busMaster === false) next.nic.busMasterChanged(false);
      restoreNic(next.nic, record);
      return next;
    } catch (error) {
      next.nic.detach();
      throw error;
    }
  }

  send(queue: number): void {
    if (this.driver.send(queue, frameOf(this.#next))) this.traffic[queue].sent.push(this.#next++);
  }

  give(queue: number): void {
    this.ports[queue].incoming.push(frameOf(this.#next));
    this.traffic[queue].given.push(this.#next++);
  }

  take(queue: number, most?: number): void {
    const { received } = this.traffic[queue];
    this.driver.receive(queue, (frame) => received.push(numberOf(frame)), most);
    this.driver.clean(queue);
  }

  /** Everything arrives that is on its way. */
  settle(): void {
    for (const port of this.ports) port.room = Number.POSITIVE_INFINITY;
    for (let idle = 0; idle < 3; idle++) {
      if (this.local.turn() > 0) idle = 0;
      for (const pair of this.local.pairs) pair.portWritable();
      for (const queue of this.ports.keys()) this.take(queue);
    }
  }

  /** Each packet arrived once, in order, unchanged. */
  check(what: string): void {
    for (const [queue, { sent, given, received }] of this.traffic.entries()) {
      const left = this.ports[queue].sent;
      assert.deepEqual(left.map(numberOf), sent, `${what}: sent on queue ${queue}`);
      assert.deepEqual(received, given, `${what}: received on queue ${queue}`);
      for (const frame of left) assert.deepEqual(frame, frameOf(numberOf(frame)));
    }
  }

  close(): void {
    this.nic.detach();
    this.memory.close();
  }
}

/** One step of guest, port or machine. */
function step(machine: Machine, random: Random, replaces: number): void {
  const { local, ports, memory, driver } = machine;
  const queue = random(ports.length);
  if (random(100) < replaces) return machine.replace();
  switch (random(9)) {
    case 0:
    case 1:
      return machine.send(queue);
    case 2:
    case 3:
      return machine.give(queue);
    case 4:
      return machine.take(queue, 1 + random(4));
    case 5:
      ports[queue].room = random(5);
      return local.pairs[queue].portWritable();
    case 6: {
      // Arming and disarming is what a loop does before and after it sleeps.
      local.pairs[queue].armKicks();
      return random(2) === 0 ? local.pairs[queue].disarmKicks() : undefined;
    }
    case 7:
      if (random(4) > 0) return;
      if (random(2) === 0) machine.nic.busMasterChanged(!machine.nic.state.busMaster);
      else memory.setVisible(memory.ranges.length === 0);
      return machine.nic.memoryChanged();
    default:
      local.turn();
      driver.clean(queue);
  }
}

for (const device of FORMATS) {
  for (const form of ["helperfree", "v1"] as const) {
    test(`${device.name}, ${form}: no packet is lost when the NIC is replaced at any point`, () => {
      for (let seed = 1; seed <= SEEDS; seed++) {
        const random = randomFrom(seed);
        const pairs = form === "v1" ? 1 : 1 + (seed % 2);
        const machine = new Machine({ device, form, pairs });
        // Before and between the steps of the handshake, too.
        machine.replace();
        machine.driver.register();
        machine.replace();
        machine.driver.reopen();
        for (let n = 0; n < STEPS; n++) step(machine, random, 15);
        if (!machine.nic.state.busMaster) machine.nic.busMasterChanged(true);
        if (machine.memory.ranges.length === 0) machine.memory.setVisible(true);
        machine.nic.memoryChanged();
        machine.settle();
        machine.check(`seed ${seed}`);
        machine.replace();
        machine.send(0);
        machine.give(0);
        machine.settle();
        machine.check(`seed ${seed}, later`);
        machine.close();
      }
    });
  }
}

/** A NIC in the middle of traffic, with everything in its record that a NIC can have. */
function example(device: RingFormat, pairs = 2): Machine {
  const machine = new Machine({ device, pairs });
  machine.driver.open();
  machine.ports[0].room = 3;
  for (let n = 0; n < 6; n++) machine.send(0);
  for (let n = 0; n < 4; n++) machine.give(pairs - 1);
  machine.local.turn();
  machine.local.write(BAR_REGISTERS, REG.QUEUE_SELECT, 2 * pairs - 1);
  machine.local.write(BAR_REGISTERS, REG.CTRL, 32);
  machine.local.write(BAR_REGISTERS, REG.DUMP_OFS, 8);
  machine.local.write(BAR_REGISTERS, REG.STATUS, 1);
  machine.nic.link.setMtu(1400);
  const addresses = [0x525400010203, 0x333300000001];
  machine.nic.state.filter = { mode: 1, result: 2, addresses };
  const key = Array.from({ length: 40 }, (_, i) => i);
  const table = pairs === 1 ? [0] : [1, 0, 1, 1];
  machine.nic.state.rss = { flags: 3, types: 63, key, table, result: 1 };
  machine.nic.state.latches.RSS = { low: 12345, high: 1 };
  machine.nic.state.coalesce = 0x8064_01f4;
  return machine;
}

/** With the counters that releases after the fixture have added. */
function withLater(record: NicRecord): NicRecord {
  const counters = { ...record.refusals.counters, upgrade: 0 };
  const queues = record.queues.map((queue) => {
    const own = { ...queue.counters.counters, limited: 0, software: 0 };
    return { ...queue, counters: { ...queue.counters, counters: own } };
  });
  return { ...record, queues, refusals: { ...record.refusals, counters } };
}

for (const device of FORMATS) {
  test(`${device.name}: record of version 1 restores the NIC that it was saved from`, () => {
    const fixtures = JSON.parse(readFileSync(FIXTURES, "utf8")) as Record<string, NicRecord>;
    const machine = example(device);
    const record = withLater(fixtures[device.name]);
    assert.deepEqual(JSON.parse(JSON.stringify(saveNic(machine.nic))), record);
    const next = machine.fresh(fixtures[device.name]);
    assert.deepEqual(JSON.parse(JSON.stringify(saveNic(next.nic))), record);
    machine.nic.detach();
    machine.local = next;
    machine.settle();
    machine.check("fixture");
    machine.close();
  });
}

test("spoilt records of a NIC are refused, and change nothing", () => {
  const machine = example(FORMATS[0], 1);
  const record: unknown = JSON.parse(JSON.stringify(saveNic(machine.nic)));
  const refused = refuseSpoilt(
    record,
    [],
    (wrong) => {
      const next = machine.fresh(wrong);
      const again = saveNic(next.nic);
      next.nic.detach();
      return again;
    },
    /position = null$/,
  );
  assert.ok(refused > 1500, `${refused} forms were refused`);
  machine.settle();
  machine.check("the NIC in use is untouched");
  machine.close();
});

test("queue that the guest broke stays broken until the driver opens the NIC anew", () => {
  const machine = new Machine({ device: sring });
  machine.driver.open();
  const prod = PRIVATE_OFFSET + SRING.prod.offset;
  const words = new DataView(machine.driver.contextOf(1).buffer);
  words.setUint32(machine.driver.contextOf(1).byteOffset + prod, 1000, true);
  machine.local.turn();
  const { tx } = machine.local.pairs[0];
  assert.deepEqual([tx.broken, tx.counters[RING_ERRORS]], [true, 1]);
  machine.replace();
  // The guest repairs its index: the queue is not served all the same, as without a replacement.
  words.setUint32(machine.driver.contextOf(1).byteOffset + prod, 0, true);
  machine.local.turn();
  const next = machine.local.pairs[0].tx;
  assert.deepEqual([next.broken, next.counters[RING_ERRORS]], [true, 1]);
  machine.replace();
  machine.driver.close();
  machine.driver.open();
  machine.send(0);
  machine.settle();
  machine.check("after the driver opened the NIC");
  machine.close();
});

/**
 * A host half that dies at every step of moving packets, one after the other: the next one goes on
 * from what is in the guest's memory. No packet comes twice, and what is lost is counted.
 */
import assert from "node:assert/strict";
import { afterEach, test } from "node:test";
import { frameOf, numberOf } from "../../test/support/guest.ts";
import type { RingFormat } from "../devices/format.ts";
import { type ProgramSets, programSets } from "../devices/program-set.ts";
import { FORMATS } from "../devices/registry.ts";
import { GuestDriver } from "../guest/driver.ts";
import { LocalMemory } from "../guest/memory.ts";
import { FlatWords } from "../memory/context-words.ts";
import type { Batch } from "../memory/index.ts";
import { BasePort, packetBytes, receiveCopy } from "../net/base.ts";
import { newProgress, PROGRESS } from "../net/progress.ts";
import { LocalNic } from "./local.ts";
import { restoreNic, saveNic } from "./persist.ts";

const BUFS = 16;
/** In the rings when the host half dies; less than a ring holds. */
const COUNT = 10;

class Killed extends Error {}

/** Steps until it is killed; 0: never. */
let left = 0;

function step(): void {
  if (left > 0 && --left === 0) throw new Killed();
}

const { set, store } = FlatWords.prototype;

afterEach(() => {
  left = 0;
  Object.assign(FlatWords.prototype, { set, store });
});

/** Each store into a context is a step: it can be the first that is not made. */
function countStores(): void {
  FlatWords.prototype.set = function (this: FlatWords, index, value) {
    step();
    set.call(this, index, value);
  };
  FlatWords.prototype.store = function (this: FlatWords, index, value) {
    step();
    store.call(this, index, value);
  };
}

/** Counts as a TAP does; between any two of its steps the process may be killed. */
class CountingPort extends BasePort {
  readonly name = "counting";
  readonly progress = newProgress();
  readonly sent: number[] = [];
  readonly incoming: Uint8Array[] = [];

  send(batch: Batch): number {
    for (let p = 0; p < batch.packets; p++) {
      this.progress[PROGRESS.sent]++;
      step();
      this.sent.push(numberOf(packetBytes(batch, p)));
      step();
      this.progress[PROGRESS.sent]++;
    }
    return batch.packets;
  }

  receive(batch: Batch): void {
    while (this.incoming.length > 0 && batch.nextBuffer() > 0) {
      this.progress[PROGRESS.taken]++;
      step();
      receiveCopy(batch, this.incoming.shift()!);
      step();
      this.progress[PROGRESS.taken]++;
    }
    this.receiveDrained = this.incoming.length === 0;
  }
}

class Machine {
  readonly memory = new LocalMemory(4 << 20);
  readonly port = new CountingPort();
  readonly received: number[] = [];
  readonly driver: GuestDriver;
  sent = 0;
  given = 0;
  local: LocalNic;
  readonly #device: RingFormat;
  readonly #programs: ProgramSets;

  constructor(device: RingFormat, programs: ProgramSets) {
    this.#device = device;
    this.#programs = programs;
    this.local = this.#newNic();
    const transport = {
      read: (bar: number, offset: number) => this.local.read(bar, offset),
      write: (bar: number, offset: number, value: number) => this.local.write(bar, offset, value),
    };
    this.driver = new GuestDriver(transport, this.memory, {});
    this.driver.open();
  }

  #newNic(): LocalNic {
    const config = { rxBufs: BUFS, txBufs: BUFS };
    const [device, programs] = [this.#device, this.#programs];
    const nic = new LocalNic({ device, memory: this.memory, ports: [this.port], config, programs });
    nic.pairs[0].progress = this.port.progress;
    return nic;
  }

  /** Both ends send, and nothing is moved yet. */
  load(): void {
    for (let n = 0; n < COUNT; n++) {
      assert.ok(this.driver.send(0, frameOf(this.sent)));
      this.sent++;
      this.port.incoming.push(frameOf(this.given++));
    }
  }

  settle(): void {
    for (let idle = 0; idle < 3; idle++) {
      if (this.local.turn() > 0) idle = 0;
      if (this.driver.receive(0, (frame) => this.received.push(numberOf(frame))) > 0) idle = 0;
      this.driver.clean(0);
    }
  }

  /** @returns packets that are counted as lost */
  goOn(record: unknown): number {
    const next = this.#newNic();
    restoreNic(next.nic, record);
    this.local = next;
    return next.pairs[0].resumeFrom(this.port.progress);
  }
}

const ascends = (numbers: readonly number[]): boolean =>
  numbers.every((number, i) => i === 0 || number > numbers[i - 1]);

/** @returns what was lost and counted; null if the host half was not killed any more */
function run(device: RingFormat, programs: ProgramSets, at: number) {
  const machine = new Machine(device, programs);
  for (let n = 0; n < 3; n++) {
    machine.load();
    machine.settle();
  }
  const record: unknown = JSON.parse(JSON.stringify(saveNic(machine.local.nic, true)));
  machine.load();
  left = at;
  let counted: number | null = null;
  try {
    machine.local.turn();
  } catch (error) {
    if (!(error instanceof Killed)) throw error;
    left = 0;
    counted = machine.goOn(record);
  }
  left = 0;
  for (let n = 0; n < 6; n++) {
    machine.settle();
    machine.load();
  }
  machine.settle();
  const { port, received, sent, given } = machine;
  const what = `${device.name}, killed at step ${at}`;
  assert.ok(ascends(port.sent), `${what}: sent ${port.sent}`);
  assert.ok(ascends(received), `${what}: received ${received}`);
  const lost = sent - port.sent.length + (given - received.length);
  assert.ok(lost <= (counted ?? 0), `${what}: ${lost} lost, ${counted} counted`);
  assert.ok((counted ?? 0) <= COUNT + 1, `${what}: ${counted} counted`);
  machine.memory.close();
  return counted === null ? null : { lost, counted };
}

for (const device of FORMATS) {
  test(`${device.name}: no packet comes twice and losses are counted when the host dies`, (t) => {
    const programs = programSets(device, { rxBufs: BUFS, txBufs: BUFS });
    countStores();
    const outcomes: { lost: number; counted: number }[] = [];
    for (let at = 1; ; at++) {
      const outcome = run(device, programs, at);
      if (outcome === null) break;
      outcomes.push(outcome);
    }
    assert.ok(outcomes.length > 4 * COUNT, `${outcomes.length} steps`);
    assert.ok(outcomes.some(({ counted }) => counted > 1));
    assert.ok(outcomes.some(({ counted }) => counted === 0));
    const most = Math.max(...outcomes.map(({ lost }) => lost));
    t.diagnostic(`${outcomes.length} steps, at most ${most} of ${2 * COUNT} lost`);
  });
}

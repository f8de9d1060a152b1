/** Interrupts held back: when they are sent, and that none is lost. */
import assert from "node:assert/strict";
import { afterEach, beforeEach, mock, test } from "node:test";
import { Bench, frameOf } from "../../test/support/guest.ts";
import { ABILITY, BAR_REGISTERS, COALESCE_ADAPTIVE, MAX_COALESCE_US, REG } from "../abi/index.ts";
import { INTERRUPTS, NO_BUFFERS } from "../memory/counters.ts";
import { readBar, writeBar } from "../nic/bars.ts";
import { Coalescer } from "./coalescer.ts";

const LONG = MAX_COALESCE_US;
const LONG_MS = LONG / 1000;

/** Time passes only if a test waits: a busy machine would end what is held. */
let now = 0;
beforeEach(() => {
  now = performance.now();
  mock.method(performance, "now", () => now);
});
afterEach(() => mock.restoreAll());

function wait(ms: number): void {
  now += ms;
}

/** A bench whose driver acknowledged COALESCE. */
function coalescingBench(coalesce: number): Bench {
  const bench = new Bench();
  const { abilities } = bench.nic.state;
  writeBar(bench.nic, BAR_REGISTERS, REG.EXT_ACK, 4, abilities | ABILITY.COALESCE);
  bench.driver.open();
  bench.settle();
  writeBar(bench.nic, BAR_REGISTERS, REG.COALESCE, 4, coalesce);
  return bench;
}

test("packets of a while take one interrupt when interrupts are held, and each one when not", () => {
  const bench = coalescingBench(0);
  const { counters } = bench.nic.pairs[0].rx;
  const give = (n: number): void => {
    bench.ports[0].incoming.push(frameOf(n));
    bench.settle();
  };
  for (let n = 0; n < 5; n++) give(n);
  assert.equal(counters[INTERRUPTS], 5);
  writeBar(bench.nic, BAR_REGISTERS, REG.COALESCE, 4, LONG);
  for (let n = 5; n < 10; n++) give(n);
  assert.equal(counters[INTERRUPTS], 5, "held");
  assert.ok(bench.nic.pairs[0].heldMs <= LONG_MS);
  bench.nic.pairs[0].lookAgain();
  assert.equal(counters[INTERRUPTS], 5, "what is held is not overdue");
  wait(LONG_MS);
  bench.local.turn();
  assert.equal(counters[INTERRUPTS], 6);
  assert.equal(bench.nic.pairs[0].heldMs, Number.POSITIVE_INFINITY);
  bench.close();
});

test("held interrupt is not sent when the guest has taken the packets meanwhile", () => {
  const bench = coalescingBench(LONG);
  const { counters } = bench.nic.pairs[0].rx;
  bench.ports[0].incoming.push(frameOf(1));
  bench.settle();
  assert.equal(bench.take().length, 1);
  wait(LONG_MS);
  bench.local.turn();
  assert.equal(counters[INTERRUPTS], 0);
  bench.close();
});

test("held interrupt is sent at once when the guest has no buffers left", () => {
  const bench = coalescingBench(LONG);
  const { counters } = bench.nic.pairs[0].rx;
  for (let n = 0; n < 300; n++) bench.ports[0].incoming.push(frameOf(n));
  bench.settle();
  assert.deepEqual([counters[NO_BUFFERS], counters[INTERRUPTS]], [1, 1]);
  bench.close();
});

test("setting is refused without the ability or when it is too long, and ends with a reset", () => {
  const plain = new Bench();
  writeBar(plain.nic, BAR_REGISTERS, REG.COALESCE, 4, 5);
  assert.match(plain.nic.refusals.last, /without the ability COALESCE/);
  assert.equal(readBar(plain.nic, BAR_REGISTERS, REG.COALESCE, 4), 0);
  plain.close();
  const bench = coalescingBench(500);
  const before = 500;
  for (const wrong of [MAX_COALESCE_US + 1, (MAX_COALESCE_US + 1) * 65536, 0xffffffff]) {
    writeBar(bench.nic, BAR_REGISTERS, REG.COALESCE, 4, wrong);
    assert.match(bench.nic.refusals.last, /us: use 0 to 10000/);
    assert.equal(readBar(bench.nic, BAR_REGISTERS, REG.COALESCE, 4), before);
  }
  bench.nic.reset();
  assert.equal(bench.nic.pairs[0].rxCoalescer.wanted(), true);
  bench.close();
});

test("adaptive time grows while each interrupt is for many packets, and ends with few", () => {
  const coalescer = new Coalescer();
  coalescer.set(40, true);
  /** @returns true if an interrupt for so many packets is sent at once */
  const interrupt = (packets: number): boolean => {
    coalescer.completed(packets);
    const now = coalescer.wanted();
    if (!now) coalescer.release();
    return now;
  };
  assert.equal(interrupt(1), true);
  assert.equal(interrupt(64), true);
  assert.equal(interrupt(64), false, "16 us");
  assert.equal(interrupt(64), false, "32 us");
  coalescer.completed(64);
  coalescer.wanted();
  assert.ok(coalescer.leftMs <= 0.04, "the bound");
  coalescer.release();
  assert.equal(interrupt(4), false, "neither many nor few");
  assert.equal(interrupt(1), false, "40 us");
  assert.equal(interrupt(1), false, "20 us");
  assert.equal(interrupt(1), false, "10 us");
  assert.equal(interrupt(1), true);
});

test("transmit half of the register holds transmit interrupts only", () => {
  const bench = coalescingBench((COALESCE_ADAPTIVE | LONG) * 65536);
  const { rxCoalescer, txCoalescer } = bench.nic.pairs[0];
  assert.equal(rxCoalescer.wanted(), true);
  txCoalescer.completed(64);
  assert.equal(txCoalescer.wanted(), true, "adaptive begins without a wait");
  assert.equal(txCoalescer.wanted(), false);
  bench.close();
});

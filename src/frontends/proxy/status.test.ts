import assert from "node:assert/strict";
import { test } from "node:test";
import { ProxyBench } from "../../../test/support/proxy.ts";
import { BATCHES, KICKS, PACKETS } from "../../memory/counters.ts";
import { dumpQueues, RateReport } from "./status.ts";

test("rates are what has grown since the last report", () => {
  const bench = new ProxyBench();
  const report = new RateReport(bench.pair);
  bench.pair.tx.counters[PACKETS] += 640;
  bench.pair.tx.counters[BATCHES] += 10;
  bench.pair.tx.counters[KICKS] += 5;
  const cells = (line: string): number[] => line.trim().split(/\s+/).slice(1).map(Number);
  const [, rx, tx] = report.next().split("\n");
  assert.deepEqual(cells(rx), [0, 0, 0, 0]);
  const [packets, kicks, interrupts, perBatch] = cells(tx);
  assert.ok(packets > 0 && kicks > 0);
  assert.deepEqual([interrupts, perBatch], [0, 64]);
  assert.deepEqual(cells(report.next().split("\n")[2]), [0, 0, 0, 0]);
  bench.close();
});

test("dumps have the original's words, of the queues that run", () => {
  const bench = new ProxyBench();
  assert.equal(dumpQueues(bench.pair), "");
  bench.configure();
  bench.ask(10);
  assert.match(dumpQueues(bench.pair), /^sring\.rxq cl 0 co 0 pr 0 kick \d intr 1\n$/);
  bench.ask(11);
  assert.match(dumpQueues(bench.pair), /\nsring\.txq cl 0 co 0 pr 0 kick \d intr_at 0\n$/);
  bench.close();
});

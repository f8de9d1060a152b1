/** What keeps a loop from sleeping: work that nobody would wake it for. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { Bench, frameOf } from "../guest/testing.ts";
import { SourcePort } from "../net/synthetic.ts";

function opened(): Bench {
  const bench = new Bench({ config: { rxBufs: 16 } });
  bench.driver.open();
  bench.settle();
  return bench;
}

test("packets in a port that cannot wake its loop are work, as long as the guest has room", () => {
  const bench = opened();
  const [pair] = bench.local.pairs;
  const [port] = bench.ports;
  assert.equal(pair.armKicks(), false, "nothing anywhere");
  for (let n = 0; n < 40; n++) port.incoming.push(frameOf(n));
  port.receiveDrained = false;
  assert.equal(pair.armKicks(), true);
  bench.settle();
  assert.ok(port.incoming.length > 0, "the guest has no room left");
  assert.equal(pair.rxStarved, true);
  assert.equal(pair.armKicks(), false, "its kick is waited for");
  pair.disarmKicks();
  while (bench.take().length > 0) bench.settle();
  assert.equal(port.incoming.length, 0);
  assert.equal(pair.armKicks(), false);
  bench.close();
});

test("a source that is paced goes on looking at the clock, until its count is given", () => {
  const bench = opened();
  const [pair] = bench.local.pairs;
  const source = new SourcePort({ rate: 1, count: 1 });
  pair.setPort(source);
  bench.settle();
  assert.equal(pair.armKicks(), true, "a second has not passed");
  const busy = new SourcePort({ count: 3 });
  pair.setPort(busy);
  bench.settle();
  assert.equal(busy.given, 3);
  assert.equal(pair.armKicks(), false);
  for (const port of [source, busy]) port.close();
  bench.close();
});

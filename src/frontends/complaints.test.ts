import assert from "node:assert/strict";
import { test } from "node:test";
import { Bench } from "../../test/support/guest.ts";
import { DROP_BAD_ADDRESS, PACKETS, RING_ERRORS } from "../memory/counters.ts";
import { Complaints, counted, droppedIn, unsharedMemory } from "./complaints.ts";

test("a complaint is logged when its counter first grows, then once a minute", () => {
  const counters = { refusedIrq: 3, messages: 0 };
  const lines: string[] = [];
  const texts = { refusedIrq: "interrupt requests refused" };
  const complaints = new Complaints(
    counted(counters, texts, () => "the last one"),
    (text) => lines.push(text),
  );
  complaints.tick(0);
  assert.deepEqual(lines, [], "what was before is not told");
  counters.refusedIrq++;
  counters.messages++;
  complaints.tick(1000);
  assert.deepEqual(lines, ["1 interrupt requests refused (refusedIrq); the last one"]);
  for (let second = 2; second < 60; second++) {
    counters.refusedIrq += 1000;
    complaints.tick(second * 1000);
  }
  assert.equal(lines.length, 1);
  complaints.tick(61_000);
  assert.equal(lines[1], "58000 interrupt requests refused (refusedIrq); the last one");
  for (let minute = 2; minute < 5; minute++) complaints.tick(minute * 61_000);
  assert.equal(lines.length, 2, "nothing new");
});

test("complaints name the queue of a drop, and ignore packets that move", () => {
  const bench = new Bench({});
  const lines: string[] = [];
  const [pair] = bench.local.pairs;
  const detail = (name: string) => (name === "dropBadAddress" ? "share it" : "");
  const complaints = new Complaints(droppedIn(bench.local.pairs, detail), (text) =>
    lines.push(text),
  );
  pair.rx.counters[PACKETS] += 5;
  pair.rx.counters[DROP_BAD_ADDRESS] += 7;
  pair.tx.counters[RING_ERRORS]++;
  complaints.tick(0);
  assert.deepEqual(lines, [
    "7 descriptors whose memory is not the guest's in rx0 (dropBadAddress); share it",
    "1 times the guest's indices were invalid and the queue was stopped in tx0 (ringErrors)",
  ]);
  bench.close();
});

test("complaints name guest memory without a file, except small ranges", () => {
  const file = {};
  assert.equal(unsharedMemory([{ address: 0, size: 2 ** 30, file }]), "");
  assert.equal(unsharedMemory([{ address: 0, size: 2 ** 20, file: null }]), "");
  assert.equal(
    unsharedMemory([
      { address: 0, size: 2 ** 30, file },
      { address: 2 ** 32, size: 2 ** 28, file: null },
    ]),
    "the VMM does not share 256 MiB at 0x100000000: give every memory backend share=on",
  );
});

import assert from "node:assert/strict";
import { test } from "node:test";
import type { ServedNic } from "../control/nic-answer.ts";
import { DROP_COUNTERS, QUEUE_COUNTERS } from "../memory/counters.ts";
import { describe, duration } from "./status.ts";

const ZERO = Object.fromEntries(QUEUE_COUNTERS.map(([name]) => [name, 0]));

function nic(counters: Record<string, number>): ServedNic {
  const queue = {
    queue: "tx0",
    counters: { ...ZERO, ...counters },
    broken: false,
    fill: 1,
    bufs: 8,
  };
  return {
    ...{ device: "sring", socket: "/run/a.sock", pid: 7, port: "sink", mac: "-", link: "up" },
    ...{ step: "enabled", programs: "verified", generation: 1, proof: "proved", features: [] },
    ...{ lastRefusal: "", version: "1.2.3", uptimeSeconds: 3700, queues: [queue] },
  } as unknown as ServedNic;
}

test("drops are shown with their reasons, in 80 columns", () => {
  assert.doesNotMatch(describe(nic({})), /drop[A-Z]/);
  const all = Object.fromEntries(DROP_COUNTERS.map((name) => [name, 123_456_789]));
  const text = describe(nic(all));
  for (const name of DROP_COUNTERS) assert.match(text, new RegExp(`${name} 123456789`));
  for (const line of text.split("\n")) assert.ok(line.length <= 80, line);
});

test("the version and the time that the server is up are shown", () => {
  assert.match(describe(nic({})), /bpfhv 1\.2\.3, up 1 h 1 min/);
  assert.deepEqual([5, 65, 90_000].map(duration), ["5 s", "1 min 5 s", "1 d 1 h"]);
});

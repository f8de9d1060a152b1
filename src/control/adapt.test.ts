/** Policies that adapt a NIC, and what becomes of those that misbehave. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { Adapter, type Outcome, offloadWhenLarge, type Policy, type Sample } from "./adapt.ts";
import { completeSpec } from "./read-spec.ts";
import type { NicSpec } from "./spec.ts";

/** A NIC that becomes what it is asked to, and a clock. */
class Fake {
  spec: NicSpec = completeSpec({ socket: "/run/a.sock" });
  now = 0;
  refusal = "";
  changes = 0;
  readonly adapter: Adapter;

  constructor(policy: Policy) {
    this.adapter = new Adapter({
      policy,
      change: async (wanted) => {
        if (this.refusal !== "") throw new Error(this.refusal);
        this.spec = { ...this.spec, ...wanted };
        this.changes++;
      },
    });
  }

  look(bytesPerPacket: number, ms = 1000): Promise<Outcome> {
    this.now += ms;
    const packetsPerSecond = 1000;
    const bytesPerSecond = packetsPerSecond * bytesPerPacket;
    const sample: Sample = {
      ...{ ms, packetsPerSecond, bytesPerSecond, dropsPerSecond: 0, bytesPerPacket },
      spec: this.spec,
    };
    return this.adapter.look(sample, this.now);
  }
}

const policy = (decide: Policy["decide"]): Policy => ({ name: "mine", decide });

test("offload-when-large moves when packets are large or small for some samples in a row", async () => {
  const nic = new Fake(offloadWhenLarge());
  const [small, large] = [nic.spec.device, "sring_gso"];
  const devices: string[] = [];
  // One sample, and lengths between the two thresholds, move nothing.
  for (const bytes of [1400, 1400, 100, 1400, 500, 1400, 1400, 1400, 500, 400, 100, 100, 100]) {
    await nic.look(bytes);
    devices.push(nic.spec.device);
  }
  const expected = [...Array(7).fill(small), ...Array(5).fill(large), small];
  assert.deepEqual(devices, expected);
  nic.spec = { ...nic.spec, device: "vring_packed" };
  for (let n = 0; n < 5; n++) assert.equal((await nic.look(1400)).state, "kept");
});

test("policy is held until its latest change is some seconds old", async () => {
  let bufs = 256;
  const nic = new Fake(
    policy(() => {
      bufs *= 2;
      return { rxBufs: bufs };
    }),
  );
  assert.equal((await nic.look(0)).state, "changed");
  assert.equal((await nic.look(0)).state, "held");
  assert.equal((await nic.look(0, 3000)).state, "changed");
  assert.equal(nic.changes, 2);
});

test("policy is stopped, with the reason, when it throws, hangs, or returns no fields", async () => {
  const wrong: [Policy["decide"], RegExp][] = [
    [
      () => {
        throw new Error("no idea");
      },
      /^policy mine threw no idea$/,
    ],
    [
      () => {
        for (;;);
      },
      /^policy mine did not decide within 2000 ms$/,
    ],
    [() => 7 as unknown as null, /^policy mine returned number: return fields/],
  ];
  for (const [decide, reason] of wrong) {
    const nic = new Fake(policy(decide));
    for (let n = 0; n < 2; n++) {
      const outcome = await nic.look(0);
      assert.equal(outcome.state, "stopped");
      assert.match(outcome.state === "stopped" ? outcome.reason : "", reason);
    }
    assert.equal(nic.changes, 0);
  }
});

test("policy is stopped when it flaps", async () => {
  const nic = new Fake(policy(({ spec }) => ({ rxBufs: spec.rxBufs === 256 ? 64 : 256 })));
  const states: string[] = [];
  while (nic.adapter.stopped === "") states.push((await nic.look(0, 4000)).state);
  assert.deepEqual(states, [...Array(4).fill("changed"), "stopped"]);
  assert.match(nic.adapter.stopped, /flaps: 4 changes back within 60 s \(rxBufs\)/);
  // Slowly is not flapping.
  const slow = new Fake(policy(({ spec }) => ({ rxBufs: spec.rxBufs === 256 ? 64 : 256 })));
  for (let n = 0; n < 20; n++) assert.equal((await slow.look(0, 30_000)).state, "changed");
});

test("policy is stopped when it asks for the impossible again and again", async () => {
  const nic = new Fake(policy(() => ({ queues: 4 })));
  nic.refusal = "queues: cannot change";
  const states: string[] = [];
  for (let n = 0; n < 3; n++) states.push((await nic.look(0, 4000)).state);
  assert.deepEqual(states, ["refused", "refused", "stopped"]);
  assert.match(nic.adapter.stopped, /refused 3 times in a row, the last time: queues: cannot/);
});

/** The list of policies: order, refusal, and what a policy outside of the built-in ones needs. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { TestPort } from "../../../test/support/guest.ts";
import { refuseSpoilt } from "../../../test/support/records.ts";
import { DROP_SPOOFED, newQueueCounters } from "../../memory/counters.ts";
import { Batch } from "../../memory/index.ts";
import { RecordReader } from "../../memory/record.ts";
import { mapAnonymous } from "../../os/memory.ts";
import { ForwardingPort } from "../forwarding.ts";
import type { Port } from "../port.ts";
import { openPolicies, parsePolicy } from "./index.ts";
import type { PolicyKind } from "./policy.ts";
import { antiSpoof } from "./spoof-guard.ts";

interface NotedSpec {
  readonly kind: "noted";
  readonly note: string;
}

const seen: string[] = [];

/** Notes the batches that it passes on, and has state: how many there were. */
class Noted extends ForwardingPort {
  readonly #note: string;
  #batches = 0;

  constructor(port: Port, note: string) {
    super(port);
    this.#note = note;
  }

  get sendBlocked(): boolean {
    return this.port.sendBlocked;
  }

  send(batch: Batch): number {
    this.#batches++;
    seen.push(`${this.#note} sends ${batch.packets}`);
    return this.port.send(batch);
  }

  override save(): unknown {
    return { batches: this.#batches };
  }

  override prepare(name: string, state: unknown): () => void {
    const record = new RecordReader(name, state);
    const batches = record.whole("batches", 0, 1000);
    record.end();
    return () => {
      this.#batches = batches;
    };
  }

  override receive(batch: Batch): void {
    this.port.receive(batch);
    seen.push(`${this.#note} receives ${batch.packets}`);
  }
}

const noted: PolicyKind<NotedSpec> = {
  name: "noted",
  usage: "noted:NOTE",
  parse: (note) => ({ kind: "noted", note }),
  open: ({ note }, port) => new Noted(port, note),
};

const kinds = [noted, antiSpoof];
const counters = () => ({ tx: newQueueCounters(), rx: newQueueCounters() });

function packets(count: number): Batch {
  const memory = mapAnonymous(4096);
  const batch = new Batch(64);
  for (let p = 0; p < count; p++) batch.push(memory.address, 60, p + 1);
  return batch;
}

test("first policy of a list sees sent packets first and received packets last", () => {
  seen.length = 0;
  const inner = new TestPort();
  const specs: NotedSpec[] = [
    { kind: "noted", note: "first" },
    { kind: "noted", note: "second" },
  ];
  const { port } = openPolicies(specs, inner, counters(), { kinds: [noted] });
  assert.equal(port.send(packets(2)), 2);
  inner.incoming.push(new Uint8Array(60));
  const free = new Batch(64);
  free.addSegment(mapAnonymous(4096).address, 2048);
  port.receive(free);
  assert.deepEqual(seen, [
    "first sends 2",
    "second sends 2",
    "second receives 1",
    "first receives 1",
  ]);
  assert.equal(inner.sent.length, 2);
});

test("policies count what they drop in the queue of their port", () => {
  const mac = Uint8Array.of(0x52, 0x54, 0, 1, 2, 3);
  const { tx, rx } = counters();
  const inner = new TestPort();
  const { port } = openPolicies([parsePolicy("anti-spoof:mac", { mac })], inner, { tx, rx });
  assert.equal(port.send(packets(3)), 3);
  assert.equal(tx[DROP_SPOOFED], 3);
  assert.equal(inner.sent.length, 0);
  port.close();
});

test("port is used as it is when there are no policies", () => {
  const inner = new TestPort();
  assert.equal(openPolicies([], inner, counters()).port, inner);
});

const FIXTURE = new URL("../../../../src/net/policies/testdata/state-v1.json", import.meta.url);

test("record of version 1 restores the state of each policy, and spoilt ones are refused", () => {
  const record: unknown = JSON.parse(readFileSync(FIXTURE, "utf8"));
  const specs = [
    { kind: "noted", note: "first" },
    { kind: "anti-spoof", mac: Uint8Array.of(2, 0, 0, 0, 0, 1), vlans: null },
    { kind: "noted", note: "second" },
  ];
  const attempt = (value: unknown): unknown => {
    const policies = openPolicies(specs, new TestPort(), counters(), { kinds });
    try {
      policies.prepare("policies", value)();
      return policies.save();
    } finally {
      policies.port.close();
    }
  };
  assert.deepEqual(attempt(record), record);
  assert.ok(refuseSpoilt(record, [], attempt) > 200);
});

test("unknown policy is refused with the ones that there are", () => {
  const message = /unknown policy "shape": use anti-spoof:/;
  assert.throws(() => parsePolicy("shape:100", { mac: null }), { code: "PORT", message });
});

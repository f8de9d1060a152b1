/** The machine that ring formats are tested with counts what is lost, and loses nothing itself. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { FORMATS } from "../devices/registry.ts";
import { sring } from "../devices/sring/host.ts";
import { Machine } from "./machine.ts";

test("machine loses nothing while formats are replaced under load", () => {
  const machine = new Machine(FORMATS[0], { rxBufs: 64, txBufs: 64 });
  for (const format of FORMATS) {
    machine.upgrade(format, { rxBufs: 32, txBufs: 128 });
    assert.equal(machine.running, format.name);
    machine.run(500);
  }
  for (const { sent, arrived, lost, repeated, damaged } of [machine.fromGuest, machine.toGuest]) {
    assert.ok(sent >= 1500, `${sent} sent`);
    assert.deepEqual([arrived, lost, repeated, damaged], [sent, 0, 0, 0]);
  }
  machine.close();
});

test("machine counts what a careless host half loses and damages", () => {
  let calls = 0;
  const careless = {
    ...sring,
    tx: (config: Parameters<typeof sring.tx>[0]) => {
      const ring = sring.tx(config);
      const { gather } = ring;
      ring.gather = (batch) => {
        const packets = gather.call(ring, batch);
        if (packets > 0 && ++calls === 2) batch.length[0]--;
        return packets;
      };
      return ring;
    },
  };
  const machine = new Machine(careless);
  machine.run(200);
  assert.equal(machine.fromGuest.damaged, 1);
  assert.equal(machine.toGuest.lost, 0);
  machine.close();
});

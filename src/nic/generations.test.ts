/** Sets that are replaced again and again under load: each packet says which set it was sent in. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { FULL } from "../../test/support/guest.ts";
import { Live, randomFrom } from "../../test/support/live.ts";
import { isTestFrame, skipTap, TapPair, testFrame } from "../../test/support/net.ts";
import type { RingFormat } from "../devices/format.ts";
import { type ProgramSets, programSets } from "../devices/program-set.ts";
import { FORMATS } from "../devices/registry.ts";
import { GuestDriver } from "../guest/driver.ts";
import { LocalMemory } from "../guest/memory.ts";
import { DROP_COUNTERS, QUEUE_COUNTERS } from "../memory/counters.ts";
import { TapPort } from "../net/tap.ts";
import { openTap } from "../os/tap.ts";
import { LocalNic } from "./local.ts";

/** The programs of each set are made once. */
const made = new Map<string, ProgramSets>();
function setOf(format: RingFormat, rxBufs: number, txBufs: number) {
  const key = `${format.name} ${rxBufs} ${txBufs}`;
  const programs = made.get(key) ?? programSets(format, { rxBufs, txBufs });
  made.set(key, programs);
  return { rxBufs, txBufs, programs };
}

const PACKETS = FULL ? 1_000_000 : 10_000;

test("no packet arrives by another set's rings when sets are replaced all the time", (t) => {
  const guest = new Live({ device: FORMATS[0], bufs: 32, mib: 32 });
  guest.driver.open();
  const random = randomFrom(15);
  const [port] = guest.ports;
  const { upgrade } = guest.nic;
  while (guest.packets < PACKETS) {
    if (upgrade.phase === "idle") {
      const bufs = () => 16 << random(3);
      const format = FORMATS[random(FORMATS.length)];
      guest.local.replace(format, setOf(format, bufs(), bufs()));
    }
    port.room = random(40);
    port.waiting += random(24);
    for (let n = random(32); n > 0 && guest.send(0); n--);
    guest.local.pairs[0].portWritable();
    if (random(2) === 0) guest.local.turn();
    if (random(3) === 0) guest.step();
    guest.take(0, random(24));
  }
  guest.check("at the end");
  const { all, inFlight } = guest.cuts;
  t.diagnostic(`${guest.packets} packets, ${all} cuts, ${inFlight} with packets in flight`);
  assert.ok(all > PACKETS / 1000, `${all} cuts`);
  assert.ok(inFlight > all / 2, `${inFlight} of ${all} cuts with packets in flight`);
  guest.close();
});

const UPGRADES = FULL ? 100 : 18;

test("no packet is lost on a TAP when sets of all formats follow each other", {
  skip: skipTap(),
}, (t) => {
  const pair = new TapPair();
  const tap = openTap({ name: "nic", vnetHeader: 12, offloads: 0, netns: pair.netns });
  const port = new TapPort(tap);
  pair.waitForBridge(port.fd);
  const memory = new LocalMemory(64 << 20);
  const config = { rxBufs: 128, txBufs: 128 };
  const local = new LocalNic({ device: FORMATS[0], memory, ports: [port], config });
  const driver = new GuestDriver(local, memory, { overlap: true, features: 0xffff });
  driver.open();
  const out = { sent: 0, arrived: 0 };
  const incoming = { sent: 0, arrived: 0 };
  const expectNext = (stream: { arrived: number }, frame: Uint8Array): void => {
    if (!isTestFrame(frame)) return;
    const number = new DataView(frame.buffer, frame.byteOffset).getUint32(14);
    assert.equal(number, stream.arrived++, "the next one");
  };
  const work = (load: number): void => {
    for (let n = 0; n < load; n++) {
      if (driver.send(0, testFrame(out.sent, 60 + (out.sent % 1400)))) out.sent++;
      if (pair.give(testFrame(incoming.sent, 60 + (incoming.sent % 1400))) > 0) incoming.sent++;
    }
    local.turn();
    driver.receive(0, (frame) => expectNext(incoming, frame));
    driver.clean(0);
    for (const frame of pair.take()) expectNext(out, frame);
  };
  const pairs = FORMATS.flatMap((from) => FORMATS.map((to) => [from, to] as const));
  for (let n = 0; n < UPGRADES; n++) {
    const [from, to] = pairs[n % pairs.length];
    for (const format of [from, to]) {
      const bufs = 64 << (n % 3);
      local.replace(format, setOf(format, bufs, bufs));
      for (let left = 300; local.nic.upgrade.phase !== "idle"; left--) {
        assert.ok(left > 0, local.nic.upgrade.phase);
        driver.upgrade.step();
        work(8);
      }
      assert.equal(local.nic.running.format, format);
      // The driver's own last step, if there is one.
      while (driver.upgrade.step());
      for (let turn = 0; turn < 5; turn++) work(16);
    }
  }
  for (let turn = 0; turn < 50; turn++) work(0);
  t.diagnostic(`${2 * UPGRADES} upgrades, ${out.sent} packets out, ${incoming.sent} in`);
  assert.deepEqual([out.arrived, incoming.arrived], [out.sent, incoming.sent]);
  for (const { counters } of [local.pairs[0].rx, local.pairs[0].tx]) {
    for (const name of DROP_COUNTERS) {
      assert.equal(counters[QUEUE_COUNTERS.findIndex(([each]) => each === name)], 0, name);
    }
  }
  local.nic.detach();
  memory.close();
  port.close();
  pair.close();
});

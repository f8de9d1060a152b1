import assert from "node:assert/strict";
import { test } from "node:test";
import type { Nic } from "../nic/nic.ts";
import type { HandshakeStep } from "../nic/state.ts";
import { NicEvents } from "./nic-events.ts";

/** As much of a NIC as its events need. */
function watched() {
  const nic = {
    ...{ step: "no guest" as HandshakeStep, resets: 0, link: { up: false } },
    ...{ running: { id: 4 }, state: { abilities: 0 }, queues: [{ registered: true }] },
  };
  const lines: string[] = [];
  const events = new NicEvents(nic as unknown as Nic, (level, text) =>
    lines.push(`${level} ${text}`),
  );
  const after = (changes: object) => {
    lines.length = 0;
    Object.assign(nic, changes);
    events.look();
    return lines.join("; ");
  };
  return { after, events, lines, nic };
}

test("each step of the guest's driver is logged once", () => {
  const { after } = watched();
  assert.equal(after({ step: "guest attached" }), "");
  assert.match(
    after({ step: "driver found the device" }),
    /^info the guest's driver found the NIC$/,
  );
  assert.match(after({ step: "programs fetched" }), /^info the guest fetched the programs$/);
  assert.match(
    after({ step: "enabled", link: { up: true } }),
    /programs of set 4 .*kernel; info link up$/,
  );
  for (let n = 0; n < 5; n++) assert.equal(after({}), "");
});

test("a reset is logged only when a driver had the NIC", () => {
  const { after } = watched();
  assert.equal(after({ step: "guest attached", resets: 1 }), "");
  assert.equal(after({ resets: 2 }), "");
  after({ step: "enabled", link: { up: true } });
  assert.equal(
    after({ step: "guest attached", resets: 3, link: { up: false } }),
    "info the NIC was reset; info link down",
  );
  after({ step: "enabled", link: { up: true } });
  assert.equal(after({ step: "no guest", resets: 4, link: { up: false } }), "info link down");
});

test("the link is logged when it changes without a message", () => {
  const { events, lines, nic } = watched();
  nic.link.up = true;
  events.lookAtLink();
  events.lookAtLink();
  nic.link.up = false;
  events.lookAtLink();
  assert.deepEqual(lines, ["info link up", "info link down"]);
});

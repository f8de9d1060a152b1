import assert from "node:assert/strict";
import { test } from "node:test";
import { LINUX_MTU } from "../nic/config.ts";
import { mtuOutcome } from "./spec.ts";

test("set-mtu says that the guest follows when the MTU falls", () => {
  assert.equal(mtuOutcome(1500, 68), "MTU 68: the guest follows");
  assert.equal(mtuOutcome(1500, 1500), "MTU 1500: the guest follows");
});

test("set-mtu says what to do in the guest when the MTU rises", () => {
  const text = mtuOutcome(68, 1500);
  assert.match(text, /^MTU 1500 at most: the guest stays .*ip link set dev INTERFACE mtu 1500$/);
});

test("set-mtu names the driver's maximum when the MTU is larger", () => {
  const text = mtuOutcome(1500, 60000);
  assert.match(text, new RegExp(`mtu ${LINUX_MTU}; .*take ${LINUX_MTU} at most$`));
});

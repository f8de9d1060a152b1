/** What the NIC says of the driver's verdict on its programs. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { TestPort } from "../../test/support/guest.ts";
import { ABILITY, BAR_REGISTERS, EVENT, REG, VERDICT } from "../abi/index.ts";
import { sring } from "../devices/sring/host.ts";
import { LocalMemory } from "../guest/memory.ts";
import { LocalNic } from "./local.ts";
import { restoreNic, saveNic } from "./persist.ts";

/** Program rxc, in the upper byte of VERDICT_INFO. */
const RXC = 2 << 24;
const UNKNOWN = 0xffffff;

function messageOf(info: number): string {
  const local = new LocalNic({
    device: sring,
    memory: new LocalMemory(1 << 20),
    ports: [new TestPort()],
  });
  const write = (register: number, value: number) => local.write(BAR_REGISTERS, register, value);
  write(REG.EXT_ACK, ABILITY.BLOB);
  write(REG.VERDICT_INFO, info);
  write(REG.SET_VERDICT, (1 << 8) | VERDICT.REFUSED);
  return local.nic.refusals.last;
}

test("refusal names program and instruction when the driver knows both", () => {
  assert.equal(messageOf(RXC | 17), "the guest refused a program (program rxc, instruction 17)");
});

test("refusal names the program alone when only the guest's kernel knows the instruction", () => {
  assert.equal(messageOf(RXC | UNKNOWN), "the guest refused a program (program rxc)");
});

test("events are gone when a driver that takes none follows one that did", () => {
  const ports = [new TestPort()];
  const local = new LocalNic({ device: sring, memory: new LocalMemory(1 << 20), ports });
  local.write(BAR_REGISTERS, REG.EXT_ACK, ABILITY.EVENT);
  local.nic.raise(EVENT.LINK_OR_MTU);
  local.write(BAR_REGISTERS, REG.EXT_ACK, 0);
  assert.equal(local.nic.state.events, 0);
  // Otherwise no other process could go on with the NIC.
  const next = new LocalNic({ device: sring, memory: new LocalMemory(1 << 20), ports });
  restoreNic(next.nic, JSON.parse(JSON.stringify(saveNic(local.nic))));
});

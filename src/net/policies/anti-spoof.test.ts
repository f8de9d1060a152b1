import assert from "node:assert/strict";
import { test } from "node:test";
import { parsePolicy } from "./index.ts";

const OWN = Uint8Array.of(0x52, 0x54, 0, 1, 2, 3);
const GIVEN = Uint8Array.of(0x52, 0x54, 0, 9, 9, 9);

const KIND = "anti-spoof";
const parse = (rules: string, mac: Uint8Array | null) => parsePolicy(`${KIND}:${rules}`, { mac });

test("rules give the NIC's own address or another one, and a list of VLANs or any", () => {
  assert.deepEqual(parse("mac", OWN), { kind: KIND, mac: OWN, vlans: null });
  assert.deepEqual(parse("mac,vlan=0+10+4094", OWN), {
    kind: KIND,
    mac: OWN,
    vlans: [0, 10, 4094],
  });
  assert.deepEqual(parse("mac=52:54:00:09:09:09,vlan=7", null), {
    ...{ kind: KIND, mac: GIVEN, vlans: [7] },
  });
  assert.deepEqual(parse("mac,vlan=7,tags=2", OWN), { kind: KIND, mac: OWN, vlans: [7], tags: 2 });
});

for (const [words, message] of [
  ["", /write mac or mac=ADDRESS/],
  ["vlan=10", /begins with mac/],
  ["mac,vlan=", /VLAN ""/],
  ["mac,vlan=10+4095", /VLAN "4095": use numbers from 0 to 4094/],
  ["mac,vlan=ten", /VLAN "ten"/],
  ["mac,tags=2", /say for which VLANs, as in mac,vlan=10,tags=2/],
  ["mac,vlan=7,tags=0", /tags=0: use 1 to 2/],
  ["mac,vlan=7,tags=3", /tags=3: use 1 to 2/],
  ["mac,vlan=7,tags=", /tags=: use 1 to 2/],
  ["mac,mac", /write mac or mac=ADDRESS/],
  ["mac=52:54", /MAC "52:54"/],
  ["mac,ip=10.0.0.1", /write mac or mac=ADDRESS/],
] as const) {
  test(`"${words}" is refused with what to write`, () => {
    assert.throws(() => parse(words, OWN), message);
  });
}

test("mac alone is refused when only the VMM knows the address", () => {
  assert.throws(() => parse("mac", null), /use mac=ADDRESS/);
});

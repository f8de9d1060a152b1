import assert from "node:assert/strict";
import { test } from "node:test";
import { PROGRAM_IDS } from "../abi/index.ts";
import type { Device } from "../devices/device.ts";
import { DEVICES } from "../devices/index.ts";
import { sring } from "../devices/sring/index.ts";
import { assembleText } from "../ebpf/text.ts";
import { CommandError } from "./errors.ts";
import { proofOf, proveDevice } from "./proof.ts";

const SIZES = { rxBufs: 256, txBufs: 16 };

/** sring, but its txc trusts an index of the host. */
const careless: Device = {
  ...sring,
  name: "careless",
  programs: (options) => {
    const { form, code } = sring.programs(options);
    const txc = assembleText([
      "r2 = *(u32 *)(r1 + 16)",
      "r1 += r2",
      "r0 = *(u8 *)(r1 + 0)",
      "exit",
    ]);
    return { form, code: new Map([...code, [PROGRAM_IDS.txc, txc]]) };
  },
};

test("all that devices ship is proved, in both forms", () => {
  for (const device of DEVICES) {
    assert.equal(proofOf(device, SIZES, false), "proved");
    const forms = new Set(proveDevice(device, SIZES).map(({ form }) => form));
    assert.deepEqual([...forms], ["helperfree", "v1"]);
  }
});

test("a device with an unsafe program is not served, and told why", () => {
  assert.throws(
    () => proofOf(careless, SIZES, false),
    (error: CommandError) => {
      assert.ok(error instanceof CommandError);
      assert.match(
        error.message,
        /careless's programs \(helperfree\) are not safe.*txc: instr.* 1 /,
      );
      assert.match(error.message, /--allow-unverified ships them all the same$/);
      assert.equal(error.status, 1);
      return true;
    },
  );
});

test("where that is allowed, the status names what is not proved", () => {
  assert.equal(proofOf(careless, SIZES, true), "not proved: txc (helperfree), txc (v1)");
});

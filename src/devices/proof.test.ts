import assert from "node:assert/strict";
import { test } from "node:test";
import { PROGRAM_IDS } from "../abi/index.ts";
import { assembleText } from "../ebpf/text.ts";
import type { RingFormat } from "./format.ts";
import { programsOf } from "./program-set.ts";
import { proofOf, proveDevice, proveInTurns, UnprovedError } from "./proof.ts";
import { FORMATS } from "./registry.ts";
import { sring } from "./sring/host.ts";

const SIZES = { rxBufs: 256, txBufs: 16 };

/** sring, but its txc trusts an index of the host. */
const careless: RingFormat = {
  ...sring,
  name: "careless",
  programs: (options) => {
    const { form, code } = programsOf(sring, options);
    const txc = assembleText([
      "r2 = *(u32 *)(r1 + 16)",
      "r1 += r2",
      "r0 = *(u8 *)(r1 + 0)",
      "exit",
    ]);
    return { form, code: new Map([...code, [PROGRAM_IDS.txc, txc]]) };
  },
};

test("every program of every ring format is proved in both forms", () => {
  for (const device of FORMATS) {
    const verdicts = proveDevice(device, SIZES);
    assert.equal(proofOf(device, verdicts, false), "proved");
    const forms = new Set(verdicts.map(({ form }) => form));
    assert.deepEqual([...forms], ["helperfree", "v1"]);
  }
});

test("proofOf refuses a ring format with an unsafe program and says why", () => {
  assert.throws(
    () => proofOf(careless, proveDevice(careless, SIZES), false),
    (error: UnprovedError) => {
      assert.ok(error instanceof UnprovedError);
      assert.match(
        error.message,
        /careless's programs \(helperfree\) are not safe.*txc: instr.* 1 /,
      );
      assert.match(error.message, /--allow-unverified ships them all the same$/);
      assert.equal(error.code, "UNPROVED");
      return true;
    },
  );
});

test("proofOf names the programs that are not proved when they are allowed", () => {
  const proof = proofOf(careless, proveDevice(careless, SIZES), true);
  assert.equal(proof, "not proved: txc (helperfree), txc (v1)");
});

test("program that is refused without helpers is verified again with them", () => {
  const gso = FORMATS.find(({ name }) => name === "sring_gso")!;
  const helped: RingFormat = {
    ...gso,
    programs: ({ bufs, form }) => ({ form, code: programsOf(gso, { bufs, form: "v1" }).code }),
  };
  const verdicts = proveDevice(helped, SIZES);
  const refused = verdicts.filter(({ accepted }) => !accepted);
  assert.ok(refused.length > 0);
  assert.ok(refused.every(({ form }) => form === "helperfree"));
  const judgedAlone = proveDevice(helped, { ...SIZES, forms: ["v1"] });
  assert.deepEqual(
    verdicts.filter(({ form }) => form === "v1"),
    judgedAlone,
  );
});

test("proveInTurns returns the verdicts of proveDevice", async () => {
  assert.deepEqual(await proveInTurns(careless, SIZES), proveDevice(careless, SIZES));
});

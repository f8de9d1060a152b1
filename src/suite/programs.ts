/** The verifier accepts what a ring format ships, at every size that is asked for. */
import assert from "node:assert/strict";
import { proveDevice } from "../devices/proof.ts";
import { summarise } from "../ebpf/verifier/index.ts";
import type { Case, Subject } from "./case.ts";

export function programCases({ format, form, sizes }: Subject): Case[] {
  return sizes.map((bufs) => ({
    name: `verifier accepts all eight programs for ${bufs} buffers`,
    run: () => {
      const verdicts = proveDevice(format, { rxBufs: bufs, txBufs: bufs, forms: [form] });
      assert.equal(verdicts.length, 8, "a set has eight programs");
      const refused = verdicts.filter(({ accepted }) => !accepted);
      assert.deepEqual(refused.map(summarise), []);
    },
  }));
}

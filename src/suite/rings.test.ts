/** The path of packets, for every ring format and the same rings with programs by clang. */
import { describe, test } from "node:test";
import { FULL, VARIANTS } from "../../test/support/guest.ts";
import { ringCases } from "./rings.ts";

for (const variant of VARIANTS) {
  describe(variant.name, () => {
    const subject = { ...variant, format: variant.device, runs: FULL ? 2000 : 25 };
    for (const { name, run } of [...ringCases(subject)]) test(name, run);
  });
}

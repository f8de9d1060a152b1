/** Restarts of a driver that arms nothing, for every ring format and programs by clang. */
import { describe, test } from "node:test";
import { FULL, VARIANTS } from "../../test/support/guest.ts";
import { reopenCases } from "./reopen.ts";

for (const variant of VARIANTS) {
  describe(variant.name, () => {
    const subject = { ...variant, format: variant.device, runs: FULL ? 5000 : 10 };
    for (const { name, run } of [...reopenCases(subject)]) test(name, run);
  });
}

/** No wake-up is lost, with the programs of our compiler. */
import { describe, test } from "node:test";
import { FULL, VARIANTS } from "../../test/support/guest.ts";
import { wakeUpCases } from "./wakeups.ts";

for (const variant of VARIANTS.filter(({ name }) => !name.endsWith("clang"))) {
  describe(variant.name, () => {
    const subject = { ...variant, format: variant.device, runs: FULL ? 2000 : 25 };
    for (const { name, run } of [...wakeUpCases(subject)]) test(name, run);
  });
}

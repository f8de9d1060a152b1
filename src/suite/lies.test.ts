/** Lying guests, and what becomes of each packet, for every ring format. */
import { describe, test } from "node:test";
import { FULL, VARIANTS } from "../../test/support/guest.ts";
import { conservationCases } from "./conservation.ts";
import { lieCases } from "./lies.ts";

for (const variant of VARIANTS) {
  describe(variant.name, () => {
    const subject = { ...variant, format: variant.device, runs: FULL ? 2000 : 8 };
    for (const { name, run } of [...conservationCases(subject), ...lieCases(subject)])
      test(name, run);
  });
}

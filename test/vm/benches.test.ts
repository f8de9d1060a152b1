/** Benches that boot guests run to their end, briefly. */
import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { loadBenches, NAMES } from "../../bench/harness/registry.ts";
import { assertRows, runBench } from "../support/benches.ts";
import { isFull, withoutVm } from "../support/vm/requirements.ts";

const skip = isFull ? await withoutVm() : "long: script/test --full";
const folder = mkdtempSync(join(tmpdir(), "bpfhv-benches-"));
after(() => rmSync(folder, { recursive: true, force: true }));

for (const bench of await loadBenches(NAMES)) {
  if (!bench.vm) continue;
  test(`bench ${bench.name} measures every row`, { skip }, () => {
    const result = runBench(folder, process.env, bench.name, "--quick");
    // The loads that a short run leaves out.
    assertRows(bench, result, /\/15k /);
    assert.ok(result.header.qemu !== null && result.header.accelerator !== null);
  });
}

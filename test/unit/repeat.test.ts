/** `script/test --repeat` reports tests that fail in some runs. */
import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { fileURLToPath } from "node:url";

const LIBRARY = fileURLToPath(new URL("../../../script/lib/repeat.sh", import.meta.url));
const folder = mkdtempSync(join(tmpdir(), "bpfhv-repeat-test-"));
const suite = join(folder, "suite");
const environment = { ...process.env, TMPDIR: folder };
after(() => rmSync(folder, { recursive: true, force: true }));

/** Creates a suite that counts its runs; `body` has the number in $n. */
function makeSuite(body: string): void {
  const count = join(folder, "count");
  writeFileSync(count, "0");
  writeFileSync(suite, `#!/bin/bash\nn=$(($(cat ${count}) + 1)); echo $n >${count}\n${body}\n`);
  chmodSync(suite, 0o755);
}

const words = (runs: number): string[] => [
  "-c",
  `set -euo pipefail; . ${LIBRARY}; repeat_runs ${runs} ${suite}`,
];

test("repeat_runs counts failures by test when some runs fail", () => {
  makeSuite(`echo noise
if [ $n -eq 2 ]; then echo "failed: vm: pings"; echo "failed: vm: pings"; fi
if [ $n -ge 2 ]; then echo "failed: unit: slow"; echo "9 passed, 1 failed, 0 skipped"; exit 1; fi
echo "10 passed, 0 failed, 0 skipped"`);
  const { status, stdout } = spawnSync("bash", words(3), { encoding: "utf8", env: environment });
  assert.equal(status, 1);
  assert.match(stdout, /^run 1\/3: 10 passed, 0 failed, 0 skipped, status 0, in \d+ s$/m);
  assert.match(stdout, /^run 3\/3: 9 passed, 1 failed, 0 skipped, status 1, in \d+ s$/m);
  assert.match(stdout, /^3 runs, 2 of them failed\n2 times {2}unit: slow\n1 times {2}vm: pings$/m);
  const logs = /logs of the runs that failed: (.+)$/m.exec(stdout)?.[1];
  assert.match(readFileSync(join(logs!, "2.log"), "utf8"), /^noise$/m);
});

test("repeat_runs exits with status 0 when all runs pass", () => {
  makeSuite('echo "10 passed, 0 failed, 0 skipped"');
  const { status, stdout } = spawnSync("bash", words(2), { encoding: "utf8", env: environment });
  assert.equal(status, 0);
  assert.match(stdout, /^2 runs, 0 of them failed$/m);
});

test("repeat_runs counts a run that prints nothing", () => {
  makeSuite("exit 7");
  const { status, stdout } = spawnSync("bash", words(1), { encoding: "utf8", env: environment });
  assert.equal(status, 1);
  assert.match(stdout, /^run 1\/1: no summary, status 7/m);
  assert.match(stdout, /^1 times {2}\(status 7, see the log\)$/m);
});

test("repeat_runs stops with its table and status 130 when interrupted", async () => {
  makeSuite('if [ $n -eq 2 ]; then sleep 30; fi; echo "1 passed, 0 failed, 0 skipped"');
  // A process group, as a terminal's: all of it is interrupted.
  const child = spawn("bash", words(9), { detached: true, env: environment, stdio: "pipe" });
  const ended = new Promise((resolve) => child.once("close", resolve));
  let output = "";
  child.stdout.on("data", (chunk) => {
    output += chunk;
    if (/^run 1/m.test(`${chunk}`)) setTimeout(() => process.kill(-child.pid!, "SIGINT"), 300);
  });
  assert.equal(await ended, 130);
  assert.match(output, /^1 runs, 0 of them failed, stopped before the end$/m);
});

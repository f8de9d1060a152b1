/**
 * Hundreds of consecutive program sets: the guest memory that they leave behind, and what other
 * processes of the guest get hold of meanwhile.
 */

import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { freeKiB } from "../support/vm/alarms.ts";
import { buildGuestProgram } from "../support/vm/guest-program.ts";
import { isDebugKernel, patience } from "../support/vm/harness.ts";
import { NicGuest } from "../support/vm/nic-guest.ts";
import { isFull, withoutVm } from "../support/vm/requirements.ts";

const skip = await withoutVm();
/** Two sets per iteration: one with checksums on receive, one without. */
const ROUNDS = isFull ? 500 : 10;
/**
 * Memory that allocators may keep. Contexts and programs of one generation take some 100 KiB.
 * KASAN's quarantine keeps freed memory, up to a 32nd of all memory (mm/kasan/quarantine.c): with
 * it kmemleak decides at the end.
 */
const KEPT_KIB = (isDebugKernel ? 32 : 4) * 1024;

/**
 * Receive offloads are negotiated again, and the programs for them are fetched. If they take long
 * to verify, ethtool ends first.
 */
const ROUND = `
last() { dmesg | grep "programs verified by the kernel" | tail -n 1; }
for to in off on; do
  before=$(last)
  ethtool -K eth0 rx $to || exit 1
  while [ "$(last)" = "$before" ]; do sleep 0.01; done
done`;

const THIEF = "/extra/bpf_thief";
/** Feature switches during which the thief looks for descriptors. */
const SWITCHES = isDebugKernel ? 2 : 5;

/** Compiles the process that looks for the module's descriptors. @returns its path */
const buildThief = (folder: string): string =>
  buildGuestProgram(folder, "test/vm/hostile-process/bpf_thief.c");

describe("generations", { skip, timeout: patience(isFull ? 1_200_000 : 200_000) }, () => {
  const folder = mkdtempSync(join(tmpdir(), "bpfhv-generations-"));
  let vm: NicGuest;

  before(async () => {
    vm = await NicGuest.start({
      label: "gens",
      serve: ["--device", "sring_gso"],
      guest: { smp: 2, extraFiles: { [THIEF]: buildThief(folder) } },
    });
    await vm.load();
  });

  after(async () => {
    rmSync(folder, { recursive: true, force: true });
    assert.deepEqual(await vm?.close(), { aborted: false, serveCode: 0 });
  });

  test(`${2 * ROUNDS} consecutive sets under traffic leak no memory`, async (t) => {
    const rounds = (count: number) =>
      vm.guest.check(`for i in $(seq ${count}); do ${ROUND}; done`, {
        timeoutMs: patience(20_000 + count * 2000),
      });
    await rounds(3);
    const stop = vm.floodFromHost(5);
    const before = await freeKiB(vm.guest);
    const started = performance.now();
    await rounds(ROUNDS);
    const each = (performance.now() - started) / (2 * ROUNDS);
    const lost = before - (await freeKiB(vm.guest));
    stop();
    t.diagnostic(`${each.toFixed(0)} ms a set; ${lost} KiB less memory after ${2 * ROUNDS}`);
    assert.ok(lost < KEPT_KIB, `${lost} KiB less memory after ${2 * ROUNDS} sets`);
    const log = await vm.guest.check("dmesg | grep -c 'programs verified by the kernel'");
    assert.ok(Number(log) > ROUNDS, `${log} sets in the log`);
    assert.equal(await vm.pings(), 0);
    assert.match(await vm.guest.check("ethtool -S eth0"), /rx0_errors: 0\n/);
  });

  test("process sees no bpf descriptor when it switches features", async () => {
    const output = await vm.guest.check(`${THIEF} switch eth0 ${SWITCHES}`, { timeoutMs: 60_000 });
    const [, scans, seen] = /scans (\d+) descriptors (\d+) mapped \d+/.exec(output) ?? [];
    assert.ok(Number(scans) > 10 * SWITCHES, output);
    assert.equal(Number(seen), 0, output);
    assert.equal(await vm.pings(5), 0);
  });

  test("contexts are frozen when root opens them by id to write them", async () => {
    const output = await vm.guest.check(`${THIEF} by-id`);
    assert.equal(output.trim(), "contexts 2 writable 0 updated 0");
    assert.equal(await vm.pings(5), 0);
  });
});

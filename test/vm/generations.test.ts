/** Hundreds of consecutive program sets, and the guest memory that they leave behind. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { freeKiB } from "../support/vm/alarms.ts";
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

/** Receive offloads are negotiated again, and the programs for them are fetched. */
const ROUND = "ethtool -K eth0 rx off; ethtool -K eth0 rx on";

describe("generations", { skip, timeout: patience(isFull ? 1_200_000 : 200_000) }, () => {
  test(`${2 * ROUNDS} consecutive sets under traffic leak no memory`, async (t) => {
    const vm = await NicGuest.start({
      label: "gens",
      serve: ["--device", "sring_gso"],
      guest: { smp: 2 },
    });
    const rounds = (count: number) =>
      vm.guest.check(`for i in $(seq ${count}); do ${ROUND} || exit 1; done`, {
        timeoutMs: 20_000 + count * 2000,
      });
    try {
      await vm.load();
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
    } finally {
      await vm.close();
    }
  });
});

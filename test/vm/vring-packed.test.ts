/** VirtIO's packed ring in a real guest: boot, traffic both ways, down and up, reload. */
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { DROP_COUNTERS } from "../../src/memory/counters.ts";
import { NicGuest } from "../support/vm/nic-guest.ts";
import { withoutVm } from "../support/vm/requirements.ts";
import { patience } from "../support/vm/time.ts";

const skip = await withoutVm();
/** Many times the smallest ring, so that wrap bits change often. */
const SMALLEST = ["--bufs", "16"];

for (const [what, words] of [
  ["256 buffers", []],
  ["16 buffers", SMALLEST],
] as const) {
  describe(`vring_packed with ${what} in a guest`, { skip, timeout: patience(180_000) }, () => {
    let vm: NicGuest;

    before(async () => {
      vm = await NicGuest.start({ label: "vp", serve: ["--device", "vring_packed", ...words] });
      await vm.load();
    });

    after(async () => {
      assert.deepEqual(await vm?.close(), { aborted: false, serveCode: 0 });
    });

    async function traffic(): Promise<void> {
      assert.equal(await vm.pings(20), 0);
      assert.ok((await vm.link.tcp("from guest", 1)) > 1);
      assert.ok((await vm.link.tcp("to guest", 1)) > 1);
      assert.ok((await vm.link.udp("from guest", 1)).pps > 100);
      // At a rate that the guest's program can read.
      assert.ok((await vm.link.udp("to guest", 1, "500K")).pps > 100);
      for (const { queue, counters, broken } of (await vm.nic.status()).queues) {
        assert.equal(broken, false);
        for (const name of DROP_COUNTERS) assert.equal(counters[name], 0, `${queue} ${name}`);
        // Each lap inverts the wrap bit.
        assert.ok(counters.packets > 512, `${queue}: ${counters.packets} packets`);
      }
    }

    test("guest's kernel proves its programs, and it has no offloads", async () => {
      const { device, programs, features } = await vm.nic.status();
      assert.deepEqual(
        { device, programs, features },
        {
          ...{ device: "vring_packed", programs: "verified", features: [] },
        },
      );
      const shown = await vm.guest.check("ethtool -k eth0");
      assert.match(shown, /^\s*tx-tcp-segmentation: off \[fixed\]$/m);
      assert.match(shown, /^\s*rx-checksumming: off \[fixed\]$/m);
    });

    test("pings, TCP and small UDP pass both ways without drops", traffic);

    test("works when it goes down and up and reloads in a flood", async () => {
      const stop = vm.floodFromHost(2);
      for (let round = 0; round < 5; round++) {
        await vm.guest.check("ip link set eth0 down && ip link set eth0 up");
      }
      for (let round = 0; round < 3; round++) {
        await vm.guest.check("rmmod bpfhv");
        await vm.load();
      }
      stop();
      await traffic();
    });
  });
}

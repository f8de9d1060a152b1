/** A flood of packets on a guest's only CPU. */
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { patience } from "../support/vm/harness.ts";
import { NicGuest } from "../support/vm/nic-guest.ts";
import { withoutVm } from "../support/vm/requirements.ts";

const skip = await withoutVm();

describe("guest with one CPU in a flood", { skip, timeout: patience(100_000) }, () => {
  let vm: NicGuest;

  before(async () => {
    vm = await NicGuest.start({ label: "flood" });
    await vm.load();
  });

  after(async () => {
    assert.deepEqual(await vm?.close(), { aborted: false, serveCode: 0 });
  });

  /** How often the driver paused its polls for others to run. */
  async function pauses(): Promise<number> {
    const output = await vm.guest.check("ethtool -S eth0");
    return Number(/\brx0_pauses: (\d+)/.exec(output)?.[1]);
  }

  test("NIC leaves CPU time to the receiving program when packets flood the only CPU", async () => {
    const before = await pauses();
    const { pps, nicPps } = await vm.link.udp("to guest", 2);
    assert.ok(pps > nicPps / 2, `${nicPps} packets/s into the guest, ${pps} read by it`);
    assert.ok((await pauses()) > before, "it paused");
  });
});

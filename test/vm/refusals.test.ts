/** NIC and server refuse nothing in a normal session, so that a refusal indicates a fault. */
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { NicGuest } from "../support/vm/nic-guest.ts";
import { withoutVm } from "../support/vm/requirements.ts";
import { patience } from "../support/vm/time.ts";

const skip = await withoutVm();

describe("normal session with stock QEMU", { skip, timeout: patience(120_000) }, () => {
  let vm: NicGuest;

  before(async () => {
    vm = await NicGuest.start({ label: "refuse" });
    await vm.load();
  });

  after(async () => {
    assert.deepEqual(await vm?.close(), { aborted: false, serveCode: 0 });
  });

  test("refuses and logs nothing when the driver is loaded, used, and loaded again", async () => {
    assert.equal(await vm.pings(), 0);
    await vm.guest.check("ip link set eth0 down && ip link set eth0 up");
    await vm.guest.check("rmmod bpfhv");
    await vm.load();
    assert.equal(await vm.pings(), 0);
    const { refused, transport, lastRefusal } = await vm.nic.status();
    const told = vm.nic.log.split("\n").filter((line) => /refused/.test(line));
    assert.deepEqual(told, []);
    assert.equal(lastRefusal, "");
    for (const [name, count] of Object.entries({ ...refused, ...transport })) {
      if (!name.startsWith("refused") && !(name in refused)) continue;
      assert.equal(count, 0, `${name}; ${vm.nic.log}`);
    }
  });
});

/** Requests to QEMU while a NIC is in use: migration, snapshots, unplugging. */
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { rootPort } from "../../src/vm/qemu-command.ts";
import { patience, until, within } from "../support/vm/harness.ts";
import { NicGuest } from "../support/vm/nic-guest.ts";
import { isFull, withoutVm } from "../support/vm/requirements.ts";

const skip = await withoutVm();

describe("machine with a NIC", { skip, timeout: patience(100_000) }, () => {
  let vm: NicGuest;
  before(async () => {
    vm = await NicGuest.start({ label: "machine", serve: ["--speed", "25000"] });
    await vm.load();
  });
  after(async () => {
    const { aborted } = await vm.close();
    assert.equal(aborted, false);
  });

  test("guest's interface has the link speed when serve was given one", async () => {
    const [speed, duplex] = ["speed", "duplex"].map((name) =>
      vm.guest.check(`cat /sys/class/net/eth0/${name}`),
    );
    assert.equal((await speed)?.trim(), "25000");
    assert.equal((await duplex)?.trim(), "full");
  });

  test("QEMU refuses live migration when a NIC is there, and the NIC keeps working", async () => {
    const refusal = /no-live-migration-with-bpfhv' does not support live migration/;
    await assert.rejects(vm.guest.qmp("migrate", { uri: "exec:cat >/dev/null" }), refusal);
    const { status } = (await vm.guest.qmp("query-status")) as { status: string };
    assert.equal(status, "running");
    assert.equal(await vm.pings(3), 0);
  });

  test("snapshot of the running guest is refused when a NIC is there", async () => {
    const job = { "job-id": "shot", tag: "shot", vmstate: "none", devices: [] };
    await vm.guest.qmp("snapshot-save", job);
    await until(5000, "the end of the job", async () => {
      const jobs = (await vm.guest.qmp("query-jobs")) as { status: string; error?: string }[];
      if (jobs[0]?.status !== "concluded") return false;
      assert.match(jobs[0].error ?? "", /no-live-migration-with-bpfhv/);
      return true;
    });
    assert.equal(await vm.pings(3), 0);
  });

  test("QEMU refuses to unplug the NIC when it is on the root bus", async () => {
    const refusal = /pcie\.0' does not support hotplugging/;
    await assert.rejects(vm.guest.qmp("device_del", { id: "nic0" }), refusal);
    assert.equal(await vm.pings(3), 0);
  });
});

// Limits that docs/qemu.md describes. If one of these tests fails, a QEMU
// version has fixed it: update that page.
const limits = { skip: skip || (isFull ? false : "a long run"), timeout: patience(120_000) };
describe("limits of QEMU", limits, () => {
  const abortOf = async (vm: NicGuest, reason: RegExp) => {
    const { aborted, stderr } = await within(patience(30_000), "QEMU ends", vm.guest.exit);
    assert.equal(aborted, true);
    assert.match(stderr, reason);
  };

  test("QEMU aborts when a NIC with MSI-X is unplugged from a root port", async () => {
    const vm = await NicGuest.start({ label: "msix", bus: rootPort("port0", 1) });
    try {
      await vm.guest.qmp("device_del", { id: "nic0" });
      await abortOf(vm, /memory_region_del_subregion/);
    } finally {
      await vm.close();
    }
  });

  test("QEMU aborts when the guest reboots after the server was stopped in order", async () => {
    const vm = await NicGuest.start({ label: "stopped" });
    try {
      assert.equal((await vm.nic.stop()).code, 0);
      await vm.guest.check("(sleep 0.2; reboot -f) >/dev/null 2>&1 &");
      await abortOf(vm, /DMA mapping failed/);
    } finally {
      await vm.guest.close();
      vm.netns.close();
    }
  });
});

/**
 * One guest for what leaves its NIC as it was: a normal session, requests to QEMU (migration,
 * snapshots, unplugging), and at last a locked-down kernel, as with Secure Boot.
 */
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { rootPort } from "../../src/vm/qemu-command.ts";
import { isDebugKernel, patience, until, within } from "../support/vm/harness.ts";
import { MODULE, NicGuest } from "../support/vm/nic-guest.ts";
import { isFull, withoutVm } from "../support/vm/requirements.ts";

const skip = await withoutVm();
const LOCKDOWN = "/sys/kernel/security/lockdown";
const REBIND = `
  cd /sys/bus/pci/drivers/bpfhv
  device=$(basename $(readlink /sys/class/net/eth0/device))
  echo $device >unbind; dmesg -c >/dev/null; echo $device >bind; dmesg`;

describe("machine with a NIC", { skip, timeout: patience(120_000) }, () => {
  let vm: NicGuest;
  before(async () => {
    vm = await NicGuest.start({ label: "machine", serve: ["--speed", "25000"] });
    await vm.load();
  });
  after(async () => {
    const { aborted } = await vm.close();
    assert.equal(aborted, false);
  });

  test("session refuses and logs nothing when the driver is loaded, used, and loaded again", async () => {
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

  // The last one: a lockdown lasts until the guest boots again.
  const unlocked = isDebugKernel && "the debug kernel has no lockdown";
  test("locked-down kernel verifies and loads programs, and refuses an unsigned module", {
    skip: unlocked,
  }, async () => {
    await vm.guest.check("mount -t securityfs none /sys/kernel/security");
    for (const level of ["integrity", "confidentiality"]) {
      await vm.guest.check(`echo ${level} >${LOCKDOWN}`);
      assert.match(await vm.guest.check(`cat ${LOCKDOWN}`), new RegExp(`\\[${level}\\]`));
      assert.match(await vm.guest.check(REBIND), /programs verified by the kernel/, level);
      await vm.configure();
      assert.equal(await vm.pings(10), 0, level);
    }
    await vm.guest.check("rmmod bpfhv; dmesg -c >/dev/null");
    assert.notEqual((await vm.guest.run(`insmod ${MODULE}`)).status, 0);
    assert.match(await vm.guest.check("dmesg"), /Lockdown: insmod: unsigned module loading/);
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

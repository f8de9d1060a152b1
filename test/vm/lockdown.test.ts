/**
 * A guest with a locked-down kernel, as with Secure Boot: what the driver
 * still does, and what needs a signature.
 */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { isDebugKernel, patience } from "../support/vm/harness.ts";
import { MODULE, NicGuest } from "../support/vm/nic-guest.ts";
import { withoutVm } from "../support/vm/requirements.ts";

const why = await withoutVm();
const skip = why === false && isDebugKernel ? "the debug kernel has no lockdown" : why;
const LOCKDOWN = "/sys/kernel/security/lockdown";
const REBIND = `
  cd /sys/bus/pci/drivers/bpfhv
  device=$(basename $(readlink /sys/class/net/eth0/device))
  echo $device >unbind; dmesg -c >/dev/null; echo $device >bind; dmesg`;

describe("guest under lockdown", { skip, timeout: patience(60_000) }, () => {
  test("kernel verifies and loads programs, and refuses an unsigned module", async () => {
    const vm = await NicGuest.start({ label: "locked" });
    try {
      await vm.load();
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
    } finally {
      await vm.close();
    }
  });
});

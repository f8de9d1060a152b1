/**
 * A NIC is unplugged and plugged again by QMP, with another
 * server in between, as in a package upgrade.
 */
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { rootPort, vfioUserDevice } from "../../src/vm/qemu-command.ts";
import { patience, until } from "../support/vm/harness.ts";
import { ServedNic } from "../support/vm/nic.ts";
import { NicGuest } from "../support/vm/nic-guest.ts";
import { isFull, withoutVm } from "../support/vm/requirements.ts";

const skip = await withoutVm();
const NETS = ["eth0", "eth1"];

describe("NIC with plain MSI behind a root port", { skip, timeout: patience(180_000) }, () => {
  let vm: NicGuest;
  let replaced: ServedNic | undefined;

  before(async () => {
    vm = await NicGuest.start({
      label: "hotplug",
      serve: ["--interrupts", "msi"],
      bus: rootPort("port0", 1),
    });
    await vm.load();
  });

  after(async () => {
    await vm.guest.close();
    await replaced?.stop();
    await vm.close();
  });

  const unplug = async (nic: ServedNic) => {
    await vm.guest.qmp("device_del", { id: "nic0" });
    await until(patience(15_000), "the NIC's removal", () =>
      vm.guest.events.some(({ event }) => event === "DEVICE_DELETED"),
    );
    await until(
      5000,
      "the server's notice of it",
      async () => (await nic.status()).step === "no guest",
    );
    assert.equal(vm.guest.ended, false);
  };

  const plug = async (nic: ServedNic) => {
    const device = vfioUserDevice(nic.socket, { id: "nic0", bus: "port0" });
    await vm.guest.qmp("device_add", device);
    await until(patience(15_000), "its interface", async () => {
      const { output } = await vm.guest.run("ls /sys/class/net");
      return NETS.some((name) => output.includes(name));
    });
    await vm.configure();
  };

  test("one interrupt serves traffic both ways when the guest has one vector", async () => {
    assert.equal(await vm.pings(10), 0);
    assert.ok((await vm.link.tcp("from guest", 1)) > 1);
    assert.ok((await vm.link.tcp("to guest", 1)) > 1);
    const lines = await vm.guest.check("grep bpfhv /proc/interrupts");
    assert.match(lines, /MSI.* bpfhv-rx-0@pci:0000:01:00\.0, bpfhv-tx-0@pci:0000:01:00\.0/);
  });

  test("QEMU, guest and server survive when the NIC is unplugged and plugged again", async () => {
    await unplug(vm.nic);
    assert.equal((await vm.guest.check("ls /sys/class/net")).trim(), "lo");
    await plug(vm.nic);
    assert.equal(await vm.pings(10), 0);
  });

  const long = isFull ? false : "takes script/test --full";
  test("guest reboots with a new server when the old one stopped while unplugged", {
    skip: long,
  }, async () => {
    const { events } = vm.guest;
    const before = events.filter(({ event }) => event === "DEVICE_DELETED").length;
    await vm.guest.qmp("device_del", { id: "nic0" });
    await until(patience(15_000), "the NIC's removal", () => {
      return vm.guest.events.filter(({ event }) => event === "DEVICE_DELETED").length > before;
    });
    assert.equal((await vm.nic.stop()).code, 0);
    replaced = await ServedNic.start(
      `--net=tap:tap0,netns=${vm.netns.name}`,
      "--interrupts",
      "msi",
    );
    await plug(replaced);
    assert.equal(await vm.pings(5), 0);
    await vm.guest.reboot();
    await vm.load();
    assert.equal(await vm.pings(5), 0);
    assert.equal(vm.guest.ended, false);
  });
});

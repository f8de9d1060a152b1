/** The MTU, set by host and guest, and changed while packets flow. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { NicGuest } from "../support/vm/nic-guest.ts";
import { withoutVm } from "../support/vm/requirements.ts";
import { patience, until } from "../support/vm/time.ts";

const skip = await withoutVm();
const MAIN = fileURLToPath(new URL("../../src/cli/main.js", import.meta.url));
/** IP and ICMP headers of a ping, in bytes. */
const HEADERS = 28;

describe("MTU of a NIC", { skip, timeout: patience(120_000) }, () => {
  let vm: NicGuest;

  before(async () => {
    vm = await NicGuest.start({ label: "mtu", serve: ["--mtu", "1400"] });
    await vm.load();
  });

  after(async () => {
    assert.deepEqual(await vm?.close(), { aborted: false, serveCode: 0 });
  });

  const guestMtu = async () => Number(await vm.guest.check("cat /sys/class/net/eth0/mtu"));
  const setMtu = (mtu: number) =>
    promisify(execFile)(process.execPath, [MAIN, "set-mtu", vm.nic.socket, `${mtu}`]);
  /** Returns true if packets of this size return whole. */
  const passes = async (bytes: number): Promise<boolean> => {
    const words = `-q -M do -s ${bytes - HEADERS} -c 3 -i 0.1 -W 5 10.88.0.1`;
    return (await vm.guest.run(`ping ${words}`)).status === 0;
  };

  test("is the host's, and cannot be set higher", async () => {
    assert.equal(await guestMtu(), 1400);
    assert.notEqual((await vm.guest.run("ip link set eth0 mtu 1401")).status, 0);
    assert.deepEqual([await passes(1400), await passes(1401)], [true, false]);
  });

  test("is lowered and restored by the guest under traffic", async () => {
    const stop = vm.floodFromHost(5);
    await vm.guest.check("ip link set eth0 mtu 600");
    assert.deepEqual([await passes(600), await passes(601)], [true, false]);
    await vm.guest.check("ip link set eth0 mtu 1400");
    assert.equal(await passes(1400), true);
    stop();
  });

  test("is changed by the host under traffic: the guest follows down, and may go up again", async () => {
    const stop = vm.floodFromHost(5);
    assert.equal((await setMtu(1000)).stdout, "MTU 1000: the guest follows\n");
    await until(5000, "the guest's MTU to follow", async () => (await guestMtu()) === 1000);
    assert.deepEqual([await passes(1000), await passes(1001)], [true, false]);
    assert.notEqual((await vm.guest.run("ip link set eth0 mtu 1001")).status, 0);
    const { stdout } = await setMtu(1400);
    assert.match(stdout, /the guest stays at what it has, .*ip link set dev INTERFACE mtu 1400/);
    assert.equal(await guestMtu(), 1000);
    await until(5000, "the guest's MTU to be raised", async () => {
      const { status } = await vm.guest.run("ip link set eth0 mtu 1400");
      return status === 0;
    });
    assert.equal(await passes(1400), true);
    stop();
    await vm.calm();
    assert.equal(await vm.pings(10), 0);
  });
});

/** The MTU, set by host and guest, and changed while packets flow. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { transferChecked } from "../support/vm/checked-tcp.ts";
import { NicGuest } from "../support/vm/nic-guest.ts";
import { isFull, withoutVm } from "../support/vm/requirements.ts";
import { patience, until } from "../support/vm/time.ts";

const skip = await withoutVm();
const MAIN = fileURLToPath(new URL("../../src/cli/main.js", import.meta.url));
/** IP and ICMP headers of a ping, in bytes. */
const HEADERS = 28;

const JUMBO = 9000;

/** Tests a NIC whose guest may raise its MTU to JUMBO. */
function testJumbo(vm: () => NicGuest): void {
  test("carries frames of every size whole, both ways, when the guest raises its MTU", async () => {
    await vm().guest.check(`ip link set eth0 mtu ${JUMBO}`);
    assert.notEqual((await vm().guest.run(`ip link set eth0 mtu ${JUMBO + 1}`)).status, 0);
    // ping compares the content that comes back.
    const sizes = [60, 1500, 1537, 2048, 3520, 3521, 4096, 8192, JUMBO - 1, JUMBO];
    const pings = sizes.map(
      (bytes) => `ping -q -M do -s ${bytes - HEADERS} -c 2 -i 0.05 -W 5 10.88.0.1`,
    );
    const output = await vm().guest.check(pings.join(" && "));
    assert.doesNotMatch(output, /wrong data|corrupt|DUP/i);
    await transferChecked(vm(), { upMiB: 2, downMiB: 2 });
  });

  test("keeps TCP whole when the MTU changes under it", async () => {
    const changes = `for mtu in 1500 ${JUMBO} 1500 ${JUMBO}; do sleep 0.2; ip link set eth0 mtu $mtu; done`;
    await vm().guest.check(`(${changes}; echo changed) >/tmp/changes 2>&1 &`);
    await transferChecked(vm(), { upMiB: 8, downMiB: 8 });
    await until(5000, "the last change", async () => {
      return (await vm().guest.check("cat /tmp/changes")) === "changed\n";
    });
    assert.match(await vm().guest.check("ip link show eth0"), new RegExp(`mtu ${JUMBO} .*UP`));
    const stats = await vm().guest.check("ethtool -S eth0");
    assert.deepEqual(stats.match(/[rt]x0_errors: .*/g), ["rx0_errors: 0", "tx0_errors: 0"]);
  });
}

describe("MTU of a NIC", { skip, timeout: patience(120_000) }, () => {
  let vm: NicGuest;

  before(async () => {
    vm = await NicGuest.start({
      label: "mtu",
      serve: ["--device", "sring", "--mtu", "1400", "--max-mtu", `${JUMBO}`],
    });
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

  test("is raised by the host", async () => {
    await setMtu(JUMBO);
    vm.netns.exec(["ip", "link", "set", "tap0", "mtu", `${JUMBO}`]);
    await until(5000, "the guest's MTU to be raised", async () => {
      return (await vm.guest.run(`ip link set eth0 mtu ${JUMBO}`)).status === 0;
    });
  });

  testJumbo(() => vm);
});

/** The first spreads a packet over several buffers; the others receive it into one. */
const FORMATS = ["sring_gso", ...(isFull ? ["vring_packed"] : [])];

for (const format of FORMATS) {
  describe(`MTU ${JUMBO} with ${format}`, { skip, timeout: patience(120_000) }, () => {
    let vm: NicGuest;

    before(async () => {
      vm = await NicGuest.start({
        label: "jumbo",
        serve: ["--device", format, "--mtu", `${JUMBO}`],
      });
      vm.netns.exec(["ip", "link", "set", "tap0", "mtu", `${JUMBO}`]);
      await vm.load();
    });

    after(async () => {
      assert.deepEqual(await vm?.close(), { aborted: false, serveCode: 0 });
    });

    testJumbo(() => vm);
  });
}

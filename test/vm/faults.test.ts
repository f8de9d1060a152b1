/**
 * Memory shortage, and a console that sends through the NIC with
 * interrupts off, in a kernel with fault injection.
 */
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { isDebugKernel } from "../support/vm/harness.ts";
import { NicGuest } from "../support/vm/nic-guest.ts";
import { withoutVm } from "../support/vm/requirements.ts";
import { patience, sleep, until } from "../support/vm/time.ts";

const why = await withoutVm();
const skip = why === false && !isDebugKernel ? "only the debug kernel can be made to fail" : why;
const FAULTS = "/sys/kernel/debug/fail_page_alloc";
/** Log lines, each sent as a packet. */
const LINES = 300;
const PORT = 6666;
/** Duration of the packet flow during the memory shortage. */
const SECONDS = 6;

describe("NIC under fault injection", { skip, timeout: patience(120_000) }, () => {
  let vm: NicGuest;

  before(async () => {
    vm = await NicGuest.start({ label: "need", guest: { smp: 2 } });
    await vm.load();
  });

  after(async () => {
    assert.deepEqual(await vm?.close(), { aborted: false, serveCode: 0 });
  });

  async function statistic(name: string): Promise<number> {
    const text = await vm.guest.check("ethtool -S eth0");
    return Number(new RegExp(`^ *${name}: (\\d+)$`, "m").exec(text)?.[1]);
  }

  /** Lets this percentage of allocations in atomic context fail. */
  const fail = (probability: number) =>
    vm.guest.check(
      `cd ${FAULTS}; echo 0 >verbose; echo 0 >min-order; echo -1 >times; echo ${probability} >probability`,
    );

  test("NIC counts missing memory and loses no packet afterwards when half of the page allocations fail", async (t) => {
    // The reader is stopped: received packets keep their pages, and the queue needs others.
    await vm.guest.check(`
      echo 33554432 >/proc/sys/net/core/rmem_default
      iperf3 -c ${vm.link.host} -u -R -b 8M -l 1400 -t 20 >/dev/null 2>&1 &
      sleep 4; kill -STOP $(pidof iperf3)`);
    await fail(50);
    await sleep(1000 * SECONDS);
    await fail(0);
    await vm.guest.check("kill -KILL $(pidof iperf3)");
    const times = await statistic("rx0_no_memory");
    t.diagnostic(`${times} times without memory`);
    assert.ok(times > 0, "never without memory");
    // Most of the ring, automatically: the driver retries while a quarter is missing.
    await until(5000, "buffers to be given to the host again", async () => {
      const [rx] = (await vm.nic.status()).queues;
      return (rx?.fill ?? 0) >= 192;
    });
    await vm.calm();
    assert.equal(await vm.pings(20), 0);
    assert.equal(await statistic("rx0_stops"), 0);
  });

  test("interface fails to come up when all page allocations fail, and comes up afterwards", async () => {
    await vm.guest.check("ip link set eth0 down");
    await fail(100);
    const { status, output } = await vm.guest.run("ip link set eth0 up");
    await fail(0);
    assert.notEqual(status, 0);
    assert.match(output, /Cannot allocate memory/);
    await vm.guest.check("ip link set eth0 up");
    assert.equal(await vm.pings(20), 0);
  });

  test(`netconsole delivers ${LINES} lines in order during a flood`, async () => {
    const receiver = `
      const socket = require("node:dgram").createSocket("udp4");
      socket.on("message", (message) => process.stdout.write(message));
      socket.bind(${PORT}, "10.88.0.1");`;
    const child = vm.netns.spawn([process.execPath, "-e", receiver]);
    let text = "";
    child.stdout?.on("data", (data) => {
      text += data;
    });
    const [{ address }] = JSON.parse(vm.netns.exec(["ip", "-j", "link", "show", "tap0"]));
    const stop = vm.floodFromHost(5);
    try {
      await vm.guest.check(`
        mount -t configfs none /sys/kernel/config
        mkdir /sys/kernel/config/netconsole/test; cd /sys/kernel/config/netconsole/test
        echo eth0 >dev_name; echo 10.88.0.2 >local_ip; echo 10.88.0.1 >remote_ip
        echo ${PORT} >remote_port; echo ${address} >remote_mac; echo 1 >enabled
        dmesg -n 8`);
      await vm.guest.check(`ping -q -f -c 2000 -w 5 10.88.0.1 >/dev/null 2>&1 &`);
      await vm.guest.check(
        `for i in $(seq ${LINES}); do echo "line $i of netconsole" >/dev/kmsg; done`,
        { timeoutMs: patience(10_000) },
      );
      const lines = () => [...text.matchAll(/line (\d+) of netconsole/g)].map(([, n]) => Number(n));
      await until(5000, "the last line", async () => lines().at(-1) === LINES);
      assert.deepEqual(
        lines(),
        Array.from({ length: LINES }, (_, n) => n + 1),
      );
      await vm.guest.check("dmesg -n 4; echo 0 >/sys/kernel/config/netconsole/test/enabled");
      await vm.guest.check("rmdir /sys/kernel/config/netconsole/test");
    } finally {
      stop();
      child.kill("SIGKILL");
    }
    await vm.calm();
    assert.equal(await vm.pings(10), 0);
    assert.equal(await statistic("tx0_errors"), 0);
  });
});

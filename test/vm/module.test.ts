/** The guest module, on stock QEMU and a stock kernel: what a user of the card does to it. */
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { composeInitrd, moduleFiles } from "../../src/cli/guest-parts.ts";
import { Bench, MODULE, modulePath } from "./bench.ts";
import { prepareGuest, until } from "./harness.ts";
import { withoutVm } from "./requirements.ts";

const skip = await withoutVm();

describe("the guest module", { skip, timeout: 200_000 }, () => {
  let bench: Bench;

  before(async () => {
    const parts = await prepareGuest();
    const path = await modulePath("bpfhv");
    const kexecInitrd = composeInitrd(parts, moduleFiles([{ path }]));
    bench = await Bench.start({
      guest: {
        smp: 2,
        memoryMiB: 768,
        extraFiles: { "/kexec/vmlinuz": parts.kernel, "/kexec/initrd": kexecInitrd },
      },
    });
  });

  after(async () => {
    assert.deepEqual(await bench?.close(), { aborted: false, code: 0 });
  });

  test("runs programs that the guest's kernel verified, and says so everywhere", async () => {
    await bench.load();
    assert.match(await bench.guest.check("dmesg"), /eth0: programs verified by the kernel/);
    assert.match(await bench.guest.check("ethtool -i eth0"), /set 1, verified/);
    assert.equal(await bench.counter("verified"), 1);
    assert.equal((await bench.nic.status()).programs, "verified");
  });

  test("carries TCP and pings both ways, losing none", async () => {
    assert.ok((await bench.link.tcp("from guest", 1)) > 10);
    assert.ok((await bench.link.tcp("to guest", 1)) > 10);
    assert.equal(await bench.lostPings(), 0);
    assert.equal(await bench.counter("rx0_errors"), 0);
    assert.equal(await bench.counter("tx0_errors"), 0);
  });

  test("a flood from the host leaves the receiving program its share of the CPU", async () => {
    const { pps } = await bench.link.udp("to guest", 2);
    const before = await bench.counter("rx0_packets");
    assert.ok(pps > 5000, `${pps} packets/s reached the program, ${before} packets the card`);
  });

  test("goes down and up in a loop under traffic", async () => {
    const stop = bench.flood();
    const cycles = "for i in $(seq 40); do ip link set eth0 down; ip link set eth0 up; done";
    await bench.guest.check(cycles, { timeoutMs: 60_000 });
    stop();
    assert.equal(await bench.lostPings(), 0);
    assert.deepEqual(await bench.alarms(), []);
  });

  test("is unloaded and loaded in a loop under traffic, and leaks nothing on either side", async () => {
    const reload = `rmmod bpfhv; insmod ${MODULE}; ip addr add ${bench.address}/24 dev eth0; ip link set eth0 up`;
    const available = async () =>
      Number(await bench.guest.check("sync; awk '/MemAvailable/ {print $2}' /proc/meminfo"));
    await bench.guest.check(reload);
    const stop = bench.flood();
    const [descriptors, memory] = [bench.nic.openDescriptors, await available()];
    await bench.guest.check(`for i in $(seq 25); do ${reload}; done`, { timeoutMs: 60_000 });
    stop();
    assert.equal(await bench.lostPings(), 0);
    assert.deepEqual(await bench.alarms(), []);
    assert.equal(bench.nic.openDescriptors, descriptors);
    const leaked = memory - (await available());
    assert.ok(leaked < 8192, `${leaked} KiB less memory after 25 reloads`);
  });

  test("refuses programs that nobody proves, and says how to allow them", async () => {
    await bench.guest.check(`rmmod bpfhv; dmesg -c >/dev/null; insmod ${MODULE} version1=1`);
    assert.match(await bench.guest.check("dmesg"), /allow_unverified=1/);
    assert.equal((await bench.guest.run("ip link show eth0")).status, 1);
    await bench.guest.check("rmmod bpfhv");
  });

  test("runs a version 1 set where it is allowed to, and calls it unverified", async () => {
    await bench.load("version1=1 allow_unverified=1");
    assert.match(await bench.guest.check("dmesg"), /programs UNVERIFIED/);
    assert.equal(await bench.counter("verified"), 0);
    assert.equal(await bench.lostPings(), 0);
    assert.ok((await bench.link.tcp("to guest", 1)) > 10);
    assert.ok((await bench.link.tcp("from guest", 1)) > 10);
    await bench.guest.check("for i in 1 2 3; do ip link set eth0 down; ip link set eth0 up; done");
    assert.equal(await bench.lostPings(), 0);
    await bench.guest.check("rmmod bpfhv");
  });

  test("survives kexec into another kernel, which finds a quiet card", async () => {
    await bench.load();
    const boots = bench.guest.boots;
    const load = "kexec -l /kexec/vmlinuz --initrd=/kexec/initrd --reuse-cmdline";
    await bench.guest.check(load, { timeoutMs: 60_000 });
    const stop = bench.flood();
    await bench.guest.check("(sleep 0.3; kexec -e) >/dev/null 2>&1 &");
    await bench.guest.waitForBoot(boots + 1);
    stop();
    await bench.up();
    assert.equal(await bench.lostPings(), 0);
    assert.deepEqual(await bench.alarms(), []);
  });

  test("survives a reboot under traffic", async () => {
    const stop = bench.flood();
    await bench.guest.reboot();
    stop();
    await bench.load();
    assert.equal(await bench.lostPings(), 0);
  });

  test("survives the reset button under traffic", async () => {
    const stop = bench.flood();
    await bench.guest.reset();
    stop();
    await bench.load();
    assert.equal(await bench.lostPings(), 0);
  });

  test("follows the link: the TAP goes away, the carrier is lost", async () => {
    assert.equal(await bench.carrier(), true);
    bench.netns.removeTap("tap0");
    await bench.waitForCarrier(false);
    assert.deepEqual(await bench.alarms(), []);
  });

  test("lets go of a card whose server is gone, and unloads", async () => {
    const { code } = await bench.nic.stop();
    assert.equal(code, 0);
    await until(10_000, "the guest to notice", async () => {
      await bench.guest.run("ip link set eth0 down; ip link set eth0 up");
      return /device is gone|refuses to be enabled/.test(await bench.guest.check("dmesg"));
    });
    await bench.guest.check("rmmod bpfhv");
    assert.deepEqual(await bench.alarms(), []);
    assert.equal(bench.guest.ended, false);
  });
});

/**
 * The guest module on two CPUs: programs that it runs and refuses,
 * and resources that it leaves to others.
 */
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { ABI_VERSION, EXT_ID_VALUE, STATUS } from "../../src/abi/index.ts";
import { ALARM, freeKiB } from "../support/vm/alarms.ts";
import { isDebugKernel, patience } from "../support/vm/harness.ts";
import { MODULE, NicGuest } from "../support/vm/nic-guest.ts";
import { isFull, withoutVm } from "../support/vm/requirements.ts";

const skip = await withoutVm();
const LONG = isDebugKernel ? 100 : 1000;
const long = isFull ? false : "takes script/test --full";
const RELOADS = isFull ? LONG : isDebugKernel ? 5 : 10;

/**
 * The figures of docs/guest-module.md for a NIC with 256 buffers each way, plus half for other
 * users of the kernel.
 */
const COST_KIB = { bound: 400, up: 2048, used: 4096 };

/** Least rate in Mb/s that counts as traffic. */
const SOME = isDebugKernel ? 0.01 : 1;

describe("guest module", { skip, timeout: patience(isFull ? 1_800_000 : 200_000) }, () => {
  let vm: NicGuest;
  const dmesg = () => vm.guest.check("dmesg");

  /** Returns a counter of `ethtool -S`. */
  async function counter(name: string): Promise<number> {
    const output = await vm.guest.check("ethtool -S eth0");
    return Number(new RegExp(`\\b${name}: (\\d+)`).exec(output)?.[1]);
  }

  async function bothWays(): Promise<void> {
    assert.equal(await vm.pings(), 0);
    assert.ok((await vm.link.tcp("from guest", 1)) > SOME);
    assert.ok((await vm.link.tcp("to guest", 1)) > SOME);
    assert.equal((await counter("rx0_errors")) + (await counter("tx0_errors")), 0);
  }

  before(async () => {
    vm = await NicGuest.start({ label: "module", guest: { smp: 2 } });
  });

  after(async () => {
    assert.deepEqual(await vm?.close(), { aborted: false, serveCode: 0 });
  });

  test("reports in log and ethtool that the kernel verified the programs", async () => {
    await vm.load();
    assert.match(await dmesg(), /eth0: programs verified by the kernel \(6 programs, 2 queues\)/);
    assert.match(await vm.guest.check("ethtool -i eth0"), /set 1, verified/);
    assert.equal(await counter("verified"), 1);
    await bothWays();
  });

  test("takes few receive interrupts when NAPI defers them", async () => {
    const set = (polls: number, ns: number) =>
      vm.guest.check(
        `cd /sys/class/net/eth0; echo ${polls} >napi_defer_hard_irqs; echo ${ns} >gro_flush_timeout`,
      );
    await set(5000, 1_000_000);
    assert.equal(await vm.pings(1), 0);
    const before = await counter("rx0_interrupts");
    assert.equal(await vm.pings(20), 0);
    const interrupts = (await counter("rx0_interrupts")) - before;
    await set(0, 0);
    assert.ok(interrupts < 10, `${interrupts} interrupts for at least 40 packets`);
  });

  test("takes at most the documented memory when bound, up and after traffic", {
    skip: long,
  }, async (t) => {
    const device = await vm.guest.check("basename $(readlink /sys/class/net/eth0/device)");
    const driver = "/sys/bus/pci/drivers/bpfhv";
    await vm.guest.check(`echo ${device.trim()} >${driver}/unbind`);
    const without = await freeKiB(vm.guest);
    await vm.guest.check(`echo ${device.trim()} >${driver}/bind`);
    const bound = without - (await freeKiB(vm.guest));
    await vm.configure();
    assert.equal(await vm.pings(3), 0);
    const up = without - (await freeKiB(vm.guest));
    await bothWays();
    const used = without - (await freeKiB(vm.guest));
    t.diagnostic(`${bound} KiB bound, ${up} up, ${used} after traffic`);
    if (isDebugKernel) return; // Each allocation has a shadow there.
    assert.ok(bound < COST_KIB.bound, `${bound} KiB bound`);
    assert.ok(up < COST_KIB.up, `${up} KiB up`);
    assert.ok(used < COST_KIB.used, `${used} KiB after traffic`);
  });

  test("releases its memory when it goes down and up and reloads under a flood", {
    skip: long,
  }, async () => {
    const memory = await freeKiB(vm.guest);
    const stop = vm.floodFromHost(1);
    const reload = `rmmod bpfhv; insmod ${MODULE}; ip addr add 10.88.0.2/24 dev eth0`;
    const cycle = "ip link set eth0 up; ip link set eth0 down; ip link set eth0 up";
    await vm.guest.check(`for i in $(seq ${RELOADS}); do ${reload}; ${cycle}; done`, {
      timeoutMs: RELOADS * 5000,
    });
    stop();
    await vm.calm();
    assert.equal(await vm.pings(), 0);
    assert.doesNotMatch(await dmesg(), ALARM);
    const lost = memory - (await freeKiB(vm.guest));
    assert.ok(lost < 4096, `${lost} KiB less memory after ${RELOADS} reloads`);
  });

  test("shows the device's rings, channels and registers", async () => {
    const rings = await vm.guest.check("ethtool -g eth0");
    assert.equal(rings.match(/^RX:\s+256$/gm)?.length, 2, rings);
    assert.equal(rings.match(/^TX:\s+256$/gm)?.length, 2, rings);
    assert.notEqual((await vm.guest.run("ethtool -G eth0 rx 128")).status, 0);
    const channels = await vm.guest.check("ethtool -l eth0");
    assert.equal(channels.match(/^RX:\s+1$/gm)?.length, 2, channels);
    const words = (await vm.guest.check("ethtool -d eth0 raw on | od -An -v -tx4 -w4")).split("\n");
    // STATUS: link, both directions enabled; VERSION; EXT_ID.
    assert.deepEqual(
      [words[0], words[18], words[23]].map((word) => Number.parseInt(word, 16)),
      [STATUS.LINK | STATUS.RX_ENABLED | STATUS.TX_ENABLED, ABI_VERSION, EXT_ID_VALUE],
    );
  });

  test("works with one interrupt vector and timers for the others", async () => {
    await vm.guest.check("rmmod bpfhv");
    await vm.load("vectors=1");
    const lines = await vm.guest.check("grep -c bpfhv- /proc/interrupts");
    assert.equal(Number(lines), 1);
    assert.match(await dmesg(), /1 of 3 vectors: timers replace the others/);
    await bothWays();
    const before = await counter("tx0_stops");
    const { pps } = await vm.link.udp("from guest", 1);
    assert.ok(pps > 100, `${pps} packets/s out, ${(await counter("tx0_stops")) - before} stops`);
    // Not notified: polled within a second or two.
    vm.netns.exec(["ip", "link", "set", "tap0", "down"]);
    vm.netns.exec(["ip", "link", "set", "tap0", "up"]);
    assert.equal(await vm.pings(), 0);
  });

  test("carries traffic on a version 1 set", async () => {
    await vm.guest.check("rmmod bpfhv");
    await vm.load("version1=1 allow_unverified=1");
    assert.equal(await counter("verified"), 0);
    await bothWays();
    await vm.guest.check("for i in 1 2 3; do ip link set eth0 down; ip link set eth0 up; done");
    assert.equal(await vm.pings(), 0);
    await vm.guest.check("rmmod bpfhv");
    assert.doesNotMatch(await dmesg(), ALARM);
  });
});

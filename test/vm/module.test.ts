/** The guest module on two CPUs: which programs it runs, which it refuses, and what it leaves to others. */
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { MODULE, NicGuest } from "./nic-guest.ts";
import { isFull, withoutVm } from "./requirements.ts";

const skip = await withoutVm();
const RELOADS = isFull ? 1000 : 20;
/** What a kernel writes when something in it went wrong. */
const ALARM = /WARNING:|BUG:|Oops|general protection|Call Trace|UBSAN/;

describe("the guest module", { skip, timeout: isFull ? 1_800_000 : 200_000 }, () => {
  let vm: NicGuest;
  const dmesg = () => vm.guest.check("dmesg");

  /** A counter of `ethtool -S`. */
  async function counter(name: string): Promise<number> {
    const output = await vm.guest.check("ethtool -S eth0");
    return Number(new RegExp(`\\b${name}: (\\d+)`).exec(output)?.[1]);
  }

  async function bothWays(): Promise<void> {
    assert.equal(await vm.pings(), 0);
    assert.ok((await vm.link.tcp("from guest", 1)) > 1);
    assert.ok((await vm.link.tcp("to guest", 1)) > 1);
    assert.equal((await counter("rx0_errors")) + (await counter("tx0_errors")), 0);
  }

  before(async () => {
    vm = await NicGuest.start({ label: "module", guest: { smp: 2 } });
  });

  after(async () => {
    assert.deepEqual(await vm?.close(), { aborted: false, serveCode: 0 });
  });

  /** In KiB, once page pools are let go, which happens a second after their last page. */
  async function availableKiB(): Promise<number> {
    const settled = "sync; sleep 2; awk '/MemAvailable/ {print $2}' /proc/meminfo";
    return Number(await vm.guest.check(settled));
  }

  test("says in log and ethtool that the kernel verified the programs", async () => {
    await vm.load();
    assert.match(await dmesg(), /eth0: programs verified by the kernel \(8 programs, 2 queues\)/);
    assert.match(await vm.guest.check("ethtool -i eth0"), /set 1, verified/);
    assert.equal(await counter("verified"), 1);
    await bothWays();
  });

  test("leaves the receiving program its share of the CPU when packets flood in", async () => {
    const before = (await vm.nic.status()).queues[0].counters.packets;
    const { pps } = await vm.link.udp("to guest", 2);
    const delivered = ((await vm.nic.status()).queues[0].counters.packets - before) / 2;
    assert.ok(pps > delivered / 4, `${delivered} packets/s into the guest, ${pps} read by it`);
  });

  test("goes down and up, and is reloaded, in loops under a flood; its memory comes back", async () => {
    const memory = await availableKiB();
    const stop = vm.floodFromHost(1);
    const reload = `rmmod bpfhv; insmod ${MODULE}; ip addr add 10.88.0.2/24 dev eth0`;
    const cycle = "ip link set eth0 up; ip link set eth0 down; ip link set eth0 up";
    await vm.guest.check(`for i in $(seq ${RELOADS}); do ${reload}; ${cycle}; done`, {
      timeoutMs: RELOADS * 3000,
    });
    stop();
    assert.equal(await vm.pings(), 0);
    assert.doesNotMatch(await dmesg(), ALARM);
    const lost = memory - (await availableKiB());
    assert.ok(lost < 8192, `${lost} KiB less memory after ${RELOADS} reloads`);
  });

  test("carries traffic on a version 1 set, too", async () => {
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

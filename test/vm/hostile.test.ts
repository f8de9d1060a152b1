/** Hostile guests do not affect their neighbours. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { describe, test } from "node:test";
import { packageRoot } from "../../src/vm/guest-parts.ts";
import { buildModule, patience } from "../support/vm/harness.ts";
import { NicGuest } from "../support/vm/nic-guest.ts";
import { isFull, withoutVm } from "../support/vm/requirements.ts";

const skip = await withoutVm();

const CHAOS = "/modules/bpfhv_chaos.ko";
/** Number of accesses per run. */
const ACCESSES = isFull ? 30_000 : 8_000;
const SEEDS = [1, 2, 3, 4];

describe("hostile guest", { skip, timeout: patience(230_000) }, () => {
  test(`server survives ${ACCESSES * SEEDS.length} random accesses from a kernel, and the neighbour loses no packet`, async () => {
    const source = join(packageRoot(), "test/vm/hostile-module");
    const chaos = (await buildModule(source)).find((file) => file.endsWith("/bpfhv_chaos.ko"));
    assert.ok(chaos !== undefined, "the hostile module was built");
    const good = await NicGuest.start({ label: "good" });
    await good.load();
    const bad = await NicGuest.start({ label: "bad", guest: { extraFiles: { [CHAOS]: chaos } } });
    const device = (
      await bad.guest.check("basename $(dirname $(grep -l 0x0b9f /sys/bus/pci/devices/*/device))")
    ).trim();

    // Packets that the accesses may disturb.
    const stop = bad.floodFromHost(20);
    const neighbour = good.link.pingFromGuest(isFull ? 600 : 400, 0.05);
    for (const seed of SEEDS) {
      await bad.guest.check(`insmod ${CHAOS} device=${device} seed=${seed} count=${ACCESSES}`, {
        timeoutMs: 60_000,
      });
      await bad.guest.check("rmmod bpfhv_chaos");
    }
    const { sent, received } = await neighbour;
    assert.equal(received, sent, "the neighbour's pings");

    stop();
    const { refused } = await bad.nic.status();
    for (const what of ["register", "doorbell", "programWindow", "context"]) {
      assert.ok(refused[what] > 0, `${what} was refused: ${JSON.stringify(refused)}`);
    }
    await bad.load();
    assert.equal(await bad.pings(5), 0, "the NIC works with a well-behaved driver");
    assert.deepEqual(await bad.close(), { aborted: false, serveCode: 0 });
    assert.deepEqual(await good.close(), { aborted: false, serveCode: 0 });
  });
});

describe("version 1 of the ABI", { skip, timeout: patience(100_000) }, () => {
  test("programs that the kernel cannot verify run only when the guest's owner allows it", async () => {
    const vm = await NicGuest.start({ label: "v1", guest: { originalDriver: true } });
    const refused = await vm.guest.run("insmod /modules/bpfhv.ko version1=1; ip link show eth0");
    assert.notEqual(refused.status, 0);
    assert.match(await vm.guest.check("dmesg"), /allow_unverified=1 to run them unverified/);
    await vm.guest.check("rmmod bpfhv; true");
    await vm.load("version1=1 allow_unverified=1");
    assert.equal(await vm.pings(5), 0);
    assert.match(await vm.guest.check("dmesg"), /programs UNVERIFIED/);
    assert.match(await vm.guest.check("ethtool -i eth0"), /UNVERIFIED/);
    assert.equal((await vm.nic.status()).programs, "unverified");
    await vm.guest.check("ip link set eth0 down && ip link set eth0 up");
    assert.equal(await vm.pings(5), 0);
    assert.deepEqual(await vm.close(), { aborted: false, serveCode: 0 });
  });
});

/** Hostile guests do not affect their neighbours. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { packageRoot } from "../../src/vm/guest-parts.ts";
import { buildModule, patience } from "../support/vm/harness.ts";
import { NicGuest } from "../support/vm/nic-guest.ts";
import { isFull, withoutVm } from "../support/vm/requirements.ts";

const skip = await withoutVm();

const CHAOS = "/modules/bpfhv_chaos.ko";
/** Number of accesses per run. */
const ACCESSES = isFull ? 30_000 : 4_000;
const SEEDS = [1, 2, 3, 4];

describe("hostile guest", { skip, timeout: patience(240_000) }, () => {
  let good: NicGuest;
  let bad: NicGuest;

  before(async () => {
    const source = join(packageRoot(), "test/vm/hostile-module");
    const chaos = (await buildModule(source)).find((file) => file.endsWith("/bpfhv_chaos.ko"));
    assert.ok(chaos !== undefined, "the hostile module was built");
    // Its NIC answers every write, as an original driver of version 1 needs.
    good = await NicGuest.start({ label: "good", guest: { originalDriver: true } });
    await good.load();
    bad = await NicGuest.start({ label: "bad", guest: { extraFiles: { [CHAOS]: chaos } } });
  });

  after(async () => {
    const ends = [await bad?.close(), await good?.close()];
    for (const end of ends) assert.deepEqual(end, { aborted: false, serveCode: 0 });
  });

  test(`server survives ${ACCESSES * SEEDS.length} random accesses from a kernel, and the neighbour loses no packet`, async () => {
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
  });

  test("programs that the kernel cannot verify run only when the guest's owner allows it", async () => {
    await good.guest.check("rmmod bpfhv; dmesg -c >/dev/null");
    const refused = await good.guest.run("insmod /modules/bpfhv.ko version1=1; ip link show eth0");
    assert.notEqual(refused.status, 0);
    assert.match(await good.guest.check("dmesg"), /allow_unverified=1 to run them unverified/);
    await good.guest.check("rmmod bpfhv; true");
    await good.load("version1=1 allow_unverified=1");
    assert.equal(await good.pings(5), 0);
    assert.match(await good.guest.check("dmesg"), /programs UNVERIFIED/);
    assert.match(await good.guest.check("ethtool -i eth0"), /UNVERIFIED/);
    assert.equal((await good.nic.status()).programs, "unverified");
    await good.guest.check("ip link set eth0 down && ip link set eth0 up");
    assert.equal(await good.pings(5), 0);
  });
});

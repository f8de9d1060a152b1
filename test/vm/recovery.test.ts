/**
 * A NIC whose device fails for a while, is reset or forgets everything: it works again by itself,
 * and its removal meanwhile leaves nothing behind.
 */
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { ALARM } from "../support/vm/alarms.ts";
import { type Guest, Netns, patience, startGuest } from "../support/vm/harness.ts";
import { LyingNic } from "../support/vm/liar/lying-nic.ts";
import { ServedNic } from "../support/vm/nic.ts";
import { MODULE, modulePath } from "../support/vm/nic-guest.ts";
import { isFull, withoutVm } from "../support/vm/requirements.ts";

const skip = await withoutVm();
const UNBINDS = isFull ? 50 : 4;
const HOST = "10.88.0.1";
const PEER = "10.88.0.2";
const DRIVER = "/sys/bus/pci/drivers/bpfhv";

describe("NIC that recovers", { skip, timeout: patience(isFull ? 900_000 : 150_000) }, () => {
  let netns: Netns;
  let nic: LyingNic;
  let slow: ServedNic;
  let guest: Guest;
  let device = "";

  before(async () => {
    netns = Netns.make("heal");
    netns.addTap({ name: "tap0", address: `${HOST}/24` });
    nic = await LyingNic.start(
      { kind: "tap", tap: "tap0", netns: netns.name, create: false },
      Number(process.env.BPFHV_SEED ?? 1),
    );
    slow = await ServedNic.start("--net=loopback", "--answer-delay", "5");
    guest = await startGuest({
      sockets: [nic.socket, slow.socket],
      // Work that runs on memory that was freed finds zeros there, and ends in an oops.
      append: "init_on_free=1",
      extraFiles: { [MODULE]: await modulePath() },
    });
    const grep = "grep -l 0x0b9f /sys/bus/pci/devices/*/device";
    device = (
      await guest.check(`insmod ${MODULE}; basename $(dirname $(${grep} | sort | sed -n 1p))`)
    ).trim();
  });

  after(async () => {
    await guest?.close();
    await nic?.stop();
    await slow?.stop();
    netns?.close();
  });

  test(`driver leaves no work behind when it is unbound from a device that is gone, ${UNBINDS} times`, async () => {
    // The other NIC's registers are read under RTNL, for which the driver's work waits meanwhile.
    await guest.check(
      "touch /busy; while [ -e /busy ]; do ethtool -d eth1; done >/dev/null 2>&1 &",
    );
    for (let n = 0; n < UNBINDS; n++) {
      nic.mode = "gone";
      await guest.check(`echo ${device} >${DRIVER}/unbind`);
      nic.mode = "honest";
      await guest.check(`echo ${device} >${DRIVER}/bind`);
    }
    await guest.check("rm /busy");
    nic.mode = "gone";
    await guest.check("rmmod bpfhv; sleep 0.5; echo alive");
    nic.mode = "honest";
    assert.doesNotMatch(await guest.check("dmesg"), ALARM);
    await guest.check(`insmod ${MODULE}; ip addr add ${PEER}/24 dev eth0; ip link set eth0 up`);
    await guest.check(`ping -q -c 3 -i 0.1 -W 5 ${HOST}`);
  });
});

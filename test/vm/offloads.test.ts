/** A device with offloads in a real guest: packets larger than the MTU, both ways. */
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { buildModule, type Guest, Netns, prepareGuest, startGuest } from "./harness.ts";
import { ServedNic } from "./nic.ts";
import { withoutVm } from "./requirements.ts";
import { Link } from "./traffic.ts";

const skip = await withoutVm();

describe("sring_gso in a guest", { skip, timeout: 180_000 }, () => {
  let netns: Netns;
  let nic: ServedNic;
  let guest: Guest;
  let link: Link;

  before(async () => {
    const parts = await prepareGuest();
    const module = (await buildModule()).find((path) => path.endsWith("/bpfhv.ko")) as string;
    netns = Netns.make("gso");
    netns.addTap({ name: "tap0", address: "10.78.0.1/24" });
    nic = await ServedNic.start("--device", "sring_gso", "--net", `tap:tap0,netns=${netns.name}`);
    guest = await startGuest({
      sockets: [nic.socket],
      extraFiles: { "/modules/bpfhv.ko": module },
    });
    await guest.check("insmod /modules/bpfhv.ko");
    await guest.check("ip addr add 10.78.0.2/24 dev eth0 && ip link set eth0 up");
    link = new Link({ guest, netns, parts, host: "10.78.0.1", peer: "10.78.0.2" });
  });

  after(async () => {
    await guest?.close();
    await nic?.stop();
    netns?.close();
  });

  test("pings both ways", async () => {
    const out = await link.pingFromGuest(20);
    assert.equal(out.received, 20);
    assert.equal(link.pingFromHost(20).received, 20);
  });

  test("TCP both ways, in large packets", async () => {
    await link.tcp("from guest", 2);
    await link.tcp("to guest", 2);
    const { queues } = await nic.status();
    for (const { counters } of queues) {
      assert.ok(counters.bytes / counters.packets > 1000);
    }
  });
});

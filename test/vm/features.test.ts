/** Features that change with the host's sets: the guest shows those of the current set. */
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { untilAnswered } from "../support/vm/first-answer.ts";
import {
  type Guest,
  Netns,
  patience,
  prepareGuest,
  startGuest,
  until,
} from "../support/vm/harness.ts";
import { LyingNic } from "../support/vm/liar/lying-nic.ts";
import { MODULE, modulePath } from "../support/vm/nic-guest.ts";
import { withoutVm } from "../support/vm/requirements.ts";

const skip = await withoutVm();
const PEER = "10.90.0.2";
const HOST = "10.90.0.1";

/** Features that depend on the current set. */
const OF_THE_SET = [
  ...["tx-checksum-ip-generic", "tx-scatter-gather", "rx-checksumming", "rx-gro-hw"],
  ...["tx-tcp-segmentation", "tx-tcp6-segmentation", "tx-udp-segmentation"],
];
/** Switched by the user before the set changes, and kept. */
const SWITCHED_OFF = "tx-tcp6-segmentation";
const SWITCHED_ON = "tx-nocache-copy";

describe("features in a guest", { skip, timeout: patience(120_000) }, () => {
  let netns: Netns;
  let nic: LyingNic;
  let guest: Guest;

  before(async () => {
    await prepareGuest();
    netns = Netns.make("features");
    netns.addTap({ name: "tap0", address: `${HOST}/24` });
    nic = await LyingNic.start(
      { kind: "tap", tap: "tap0", netns: netns.name, create: false },
      ...([1, { device: "sring_gso" }] as const),
    );
    guest = await startGuest({
      sockets: [nic.socket],
      extraFiles: { [MODULE]: await modulePath() },
    });
    await guest.check(`insmod ${MODULE} && ip addr add ${PEER}/24 dev eth0 && ip link set eth0 up`);
  });

  after(async () => {
    await guest?.close();
    await nic?.stop();
    netns?.close();
  });

  /** Returns the state of each feature in `ethtool -k`. */
  async function features(): Promise<Map<string, string>> {
    const lines = (await guest.check("ethtool -k eth0")).matchAll(/^\s*([\w-]+): (.*)$/gm);
    return new Map([...lines].map(([, name, state]) => [name, state]));
  }

  async function untilFeature(name: string, state: string): Promise<Map<string, string>> {
    let seen = new Map<string, string>();
    await until(patience(20_000), `${name} is ${state}`, async () => {
      seen = await features();
      return seen.get(name) === state;
    });
    return seen;
  }

  test("features follow the set and keep the user's settings when it changes", async () => {
    await guest.check(`ethtool -K eth0 ${SWITCHED_OFF} off ${SWITCHED_ON} on`);
    const first = await features();
    assert.equal(first.get(SWITCHED_OFF), "off");
    assert.equal(first.get(SWITCHED_ON), "on");
    nic.mode = "no features";
    const none = await untilFeature("tx-tcp-segmentation", "off [fixed]");
    for (const name of OF_THE_SET) assert.equal(none.get(name), "off [fixed]", name);
    assert.equal(none.get(SWITCHED_ON), "on", "the core's own");
    assert.equal(none.get("highdma"), first.get("highdma"));
    assert.equal(none.get("generic-receive-offload"), first.get("generic-receive-offload"));
    await guest.check(untilAnswered(HOST));
    nic.mode = "honest";
    await untilFeature("tx-tcp-segmentation", "on");
    assert.deepEqual(await features(), first);
    assert.match(await guest.check(`ping -q -c 20 -i 0.02 -W 5 ${HOST}`), / 0% packet loss/);
  });

  test("no byte stays in flight when a queue drops what the host never completed", async () => {
    const inFlight = async () =>
      Number(await guest.check("cat /sys/class/net/eth0/queues/tx-0/byte_queue_limits/inflight"));
    await guest.check(untilAnswered(HOST));
    for (const disturbance of [
      "ip link set eth0 down && ip link set eth0 up",
      "ethtool -K eth0 rx-gro-hw off",
      "ethtool -K eth0 rx-gro-hw on",
    ]) {
      nic.mode = "silence";
      await guest.run(`ping -q -c 10 -i 0.02 -W 1 ${HOST}`);
      assert.ok((await inFlight()) > 0, "the host completes nothing");
      await guest.check(disturbance);
      nic.mode = "honest";
      await guest.check(untilAnswered(HOST));
      await until(3000, `no bytes in flight after ${disturbance}`, async () => {
        return (await inFlight()) === 0;
      });
    }
  });

  test("features appear when a driver was loaded while the host had none", async () => {
    nic.mode = "no features";
    await untilFeature("tx-tcp-segmentation", "off [fixed]");
    await guest.check(`rmmod bpfhv && insmod ${MODULE}`);
    for (const [name, state] of await features()) {
      if (OF_THE_SET.includes(name)) assert.equal(state, "off [fixed]", name);
    }
    nic.mode = "honest";
    await untilFeature("tx-tcp-segmentation", "on");
    const all = await features();
    for (const name of OF_THE_SET) assert.equal(all.get(name), "on", name);
  });
});

/**
 * A device with offloads in a real guest: features are shown, switch live, and lose nothing
 * meanwhile.
 */
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { DROP_COUNTERS, type QueueCounterName } from "../../src/memory/counters.ts";
import { untilAnswered } from "../support/vm/first-answer.ts";
import { NicGuest } from "../support/vm/nic-guest.ts";
import { withoutVm } from "../support/vm/requirements.ts";
import { patience, sleep } from "../support/vm/time.ts";

const skip = await withoutVm();
/** A TCP payload fills at most this much of the wire without segmentation offload. */
const WIRE = 1514;
/** Mean that large packets surely pass, acknowledgements and all. */
const LARGE = 4000;
const WINDOW_MS = patience(800);
/**
 * Traffic that is to outlast four switches: seconds of TCP, and pings in a hundredth of a second
 * each.
 */
const TCP_SECONDS = patience(8);
const PINGS = patience(600);

describe("sring_gso in a guest", { skip, timeout: patience(180_000) }, () => {
  let vm: NicGuest;

  before(async () => {
    vm = await NicGuest.start({ label: "gso", serve: ["--device", "sring_gso"] });
    await vm.load();
  });

  after(async () => {
    assert.deepEqual(await vm?.close(), { aborted: false, serveCode: 0 });
  });

  async function counters(queue: "rx0" | "tx0"): Promise<Record<QueueCounterName, number>> {
    return (await vm.nic.status()).queues.find((each) => each.queue === queue)!.counters;
  }

  /** Mean bytes of the packets of a queue while `action` ran. */
  async function meanSize(queue: "rx0" | "tx0", action: () => Promise<unknown>): Promise<number> {
    const then = await counters(queue);
    await action();
    const now = await counters(queue);
    return (now.bytes - then.bytes) / (now.packets - then.packets);
  }

  const switchTo = (words: string) => vm.guest.check(`ethtool -K eth0 ${words}`);

  async function assertNothingDropped(): Promise<void> {
    for (const { queue, counters, broken } of (await vm.nic.status()).queues) {
      assert.equal(broken, false);
      for (const name of DROP_COUNTERS) assert.equal(counters[name], 0, `${queue} ${name}`);
    }
  }

  test("ethtool -k shows what the device has, and what can be switched", async () => {
    const shown = await vm.guest.check("ethtool -k eth0");
    for (const feature of [
      ...["rx-checksumming", "tx-checksum-ip-generic", "tx-scatter-gather", "rx-gro-hw"],
      ...["tx-tcp-segmentation", "tx-tcp6-segmentation", "tx-udp-segmentation"],
    ]) {
      assert.match(shown, new RegExp(`^\\s*${feature}: on$`, "m"));
    }
  });

  test("pings both ways", async () => {
    assert.equal(await vm.pings(20), 0);
  });

  test("TCP both ways in large packets, none dropped", async () => {
    for (const [queue, way] of [
      ["tx0", "from guest"],
      ["rx0", "to guest"],
    ] as const) {
      const mean = await meanSize(queue, () => vm.link.tcp(way, 1));
      assert.ok(mean > LARGE, `${way}: ${mean} bytes a packet`);
    }
    await assertNothingDropped();
  });

  test("segmentation is switched off and on under TCP and a flood of pings: no ping is lost", async () => {
    await vm.guest.check(untilAnswered(vm.link.host));
    await vm.guest.check(`iperf3 -J -c ${vm.link.host} -t ${TCP_SECONDS} >/tmp/tcp.json 2>&1 &`);
    await vm.guest.check(`ping -n -q -i 0.01 -c ${PINGS} ${vm.link.host} >/tmp/ping.txt 2>&1 &`);
    await sleep(WINDOW_MS);
    const window = () => meanSize("tx0", () => sleep(WINDOW_MS));
    const means: number[] = [await window()];
    for (const words of ["tso off gso off", "gso on tso on", "tso off gso off", "tso on gso on"]) {
      await switchTo(words);
      means.push(await window());
    }
    await vm.guest.check("wait; while pidof iperf3 ping; do sleep 0.2; done", {
      timeoutMs: 20_000 + TCP_SECONDS * 1000,
    });
    const [first, off, on, offAgain, onAgain] = means;
    // Pings, acknowledgements' absence and the packets on their way when it switches: margins are
    // wide.
    for (const mean of [first, on, onAgain]) assert.ok(mean > LARGE, `means: ${means}`);
    for (const mean of [off, offAgain]) assert.ok(mean <= WIRE, `means: ${means}`);
    const tcp = JSON.parse(await vm.guest.check("cat /tmp/tcp.json"));
    assert.equal(tcp.error, undefined);
    assert.match(
      await vm.guest.check("cat /tmp/ping.txt"),
      new RegExp(`${PINGS} packets transmitted, ${PINGS} received`),
    );
    await assertNothingDropped();
  });

  test("what it receives is negotiated anew when switched: large packets end, and come back", async () => {
    const mean = () => meanSize("rx0", () => vm.link.tcp("to guest", 1));
    await switchTo("rx-gro-hw off");
    assert.doesNotMatch((await vm.nic.status()).features.join(" "), /LRO/i);
    assert.ok((await mean()) <= WIRE);
    await switchTo("rx off");
    assert.ok((await mean()) <= WIRE);
    await switchTo("rx on rx-gro-hw on");
    assert.ok((await mean()) > LARGE);
    assert.equal(await vm.pings(20), 0);
  });
});

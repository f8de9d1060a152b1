/**
 * A device with offloads in a real guest: features are shown
 * and switched live, without packet loss.
 */
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { DROP_COUNTERS, type QueueCounterName } from "../../src/memory/counters.ts";
import { untilAnswered } from "../support/vm/first-answer.ts";
import { NicGuest } from "../support/vm/nic-guest.ts";
import { withoutVm } from "../support/vm/requirements.ts";
import { patience, sleep } from "../support/vm/time.ts";

const skip = await withoutVm();
/** Largest frame with a TCP payload without segmentation offload. */
const WIRE = 1514;
/** A mean that only large packets reach, including acknowledgements. */
const LARGE = 4000;
const WINDOW_MS = patience(800);
/**
 * Traffic that outlasts four switches: seconds of TCP, and pings
 * at intervals of a hundredth of a second.
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

  /** Returns the mean size of a queue's packets during `action`. */
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

  test("ethtool -k shows the device's features and which can be switched", async () => {
    const shown = await vm.guest.check("ethtool -k eth0");
    for (const feature of [
      ...["rx-checksumming", "tx-checksum-ip-generic", "tx-scatter-gather", "rx-gro-hw"],
      ...["tx-tcp-segmentation", "tx-tcp6-segmentation", "tx-udp-segmentation"],
    ]) {
      assert.match(shown, new RegExp(`^\\s*${feature}: on$`, "m"));
    }
  });

  test("pings pass both ways", async () => {
    assert.equal(await vm.pings(20), 0);
  });

  test("TCP passes both ways in large packets without drops", async () => {
    for (const [queue, way] of [
      ["tx0", "from guest"],
      ["rx0", "to guest"],
    ] as const) {
      const mean = await meanSize(queue, () => vm.link.tcp(way, 1));
      assert.ok(mean > LARGE, `${way}: ${mean} bytes a packet`);
    }
    await assertNothingDropped();
  });

  test("no ping is lost when segmentation is switched off and on under TCP", async () => {
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
    // Margins are wide for pings, missing acknowledgements, and packets in flight at the switch.
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

  test("receive offloads are negotiated again when switched: large packets stop, and come back", async () => {
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

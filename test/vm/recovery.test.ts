/**
 * A NIC whose device fails for a while, is reset or forgets everything: it works again by itself,
 * and its removal meanwhile leaves nothing behind.
 */
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { ALARM } from "../support/vm/alarms.ts";
import {
  type Guest,
  Netns,
  patience,
  prepareGuest,
  sleep,
  startGuest,
} from "../support/vm/harness.ts";
import { LyingNic } from "../support/vm/liar/lying-nic.ts";
import type { Mode } from "../support/vm/liar/modes.ts";
import { Random } from "../support/vm/liar/random.ts";
import { ServedNic } from "../support/vm/nic.ts";
import { MODULE, modulePath } from "../support/vm/nic-guest.ts";
import { Replies } from "../support/vm/replies.ts";
import { isFull, withoutVm } from "../support/vm/requirements.ts";

const skip = await withoutVm();
const UNBINDS = isFull ? 50 : 4;
const HOST = "10.88.0.1";
const PEER = "10.88.0.2";
const FAILURES = Number(process.env.BPFHV_FAILURES ?? (isFull ? 200 : 6));
const SEED = Number(process.env.BPFHV_SEED ?? 1);
/**
 * Longer than QEMU waits for an answer, in milliseconds. Nobody may read a register at its start:
 * then QEMU breaks the connection to the server for good.
 */
const STALL_MS = 6000;
/** Addresses of the NIC whose server stalls. */
const OTHER_HOST = "10.89.0.1";
const OTHER_PEER = "10.89.0.2";

/** A failure that passes: what the device does meanwhile, and what the guest does at its start. */
interface Failure {
  readonly name: string;
  readonly mode: Mode;
  readonly guest: "reset" | null;
  readonly holdMs: number | null;
}

const FAILURE_KINDS: readonly Failure[] = [
  { name: "reset", mode: "honest", guest: "reset", holdMs: null },
  { name: "all ones", mode: "gone", guest: null, holdMs: null },
  { name: "refused enable", mode: "no enable", guest: "reset", holdMs: null },
  { name: "no programs", mode: "no programs", guest: "reset", holdMs: null },
  { name: "reset while gone", mode: "gone", guest: "reset", holdMs: null },
  // Of the other NIC, whose server is a process of its own.
  { name: "stall", mode: "honest", guest: null, holdMs: STALL_MS },
];

const DRIVER = "/sys/bus/pci/drivers/bpfhv";

describe("NIC that recovers", { skip, timeout: patience(isFull ? 900_000 : 150_000) }, () => {
  let netns: Netns;
  let ping: string;
  let nic: LyingNic;
  let slow: ServedNic;
  let guest: Guest;
  let device = "";

  before(async () => {
    netns = Netns.make("heal");
    netns.addTap({ name: "tap0", address: `${HOST}/24` });
    netns.addTap({ name: "tap1", address: `${OTHER_HOST}/24` });
    ({ ping } = await prepareGuest());
    nic = await LyingNic.start(
      { kind: "tap", tap: "tap0", netns: netns.name, create: false },
      SEED,
      { device: "sring_gso" },
    );
    slow = await ServedNic.start(`--net=tap:tap1,netns=${netns.name}`, "--answer-delay", "5");
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

  const UP = `ip addr add ${PEER}/24 dev eth0; ip link set eth0 up`;
  const RESET = () => `echo 1 >/sys/bus/pci/devices/${device}/reset`;
  const REACHED = `ping -q -c 5 -i 0.1 -W 5 ${HOST}`;

  async function counter(name: string): Promise<number> {
    const text = await guest.check("ethtool -S eth0");
    return Number(new RegExp(`^ *${name}: (\\d+)$`, "m").exec(text)?.[1]);
  }

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
    await guest.check(`insmod ${MODULE}; ${UP}`);
    await guest.check(REACHED);
  });

  test("interface passes packets again when the device was reset, up or down", async () => {
    const before = await counter("recoveries");
    await guest.check(RESET());
    await guest.check(REACHED);
    assert.equal(await counter("recoveries"), before + 1);
    await guest.check(`ip link set eth0 down; ${RESET()}; ip link set eth0 up`);
    await guest.check(REACHED);
    // Without the kernel's knowledge, while nobody uses the device.
    await guest.check("ip link set eth0 down");
    nic.mode = "gone";
    await guest.check("ethtool -d eth0 >/dev/null; sleep 0.3");
    nic.mode = "honest";
    await guest.check(`sleep 1.5; ip link set eth0 up; ${REACHED}`);
  });

  test("interface goes on with its set when another cannot be fetched for ethtool -K", async () => {
    const generation = await counter("generation");
    nic.mode = "no programs";
    try {
      await guest.run("ethtool -K eth0 rx off");
      assert.ok(nic.told("no programs") > 0, "another set was asked for");
      // The device still ships no programs.
      await guest.check(REACHED);
      assert.match(await guest.check("ethtool -k eth0"), /rx-checksumming: on/);
    } finally {
      nic.mode = "honest";
    }
    assert.equal(await counter("generation"), generation);
    await guest.check(`ethtool -K eth0 rx off; ${REACHED}; ethtool -K eth0 rx on; ${REACHED}`);
  });

  test(`traffic flows again by itself after each of ${FAILURES} failures`, async (t) => {
    const random = new Random(SEED);
    await guest.check(`ip addr add ${OTHER_PEER}/24 dev eth1; ip link set eth1 up`);
    // A NIC that only receives is not noticed to have lost its device.
    await guest.check(`ping -q -i 0.2 ${HOST} >/dev/null 2>&1 &`);
    const nics = {
      first: new Replies(netns, ping, PEER),
      other: new Replies(netns, ping, OTHER_PEER),
    };
    const gaps: { kind: string; held: number; without: number }[] = [];
    try {
      await nics.first.flow(10_000);
      await nics.other.flow(10_000);
      for (let n = 0; n < FAILURES; n++) {
        const kind = FAILURE_KINDS[n % FAILURE_KINDS.length] as Failure;
        const hold = kind.holdMs ?? 100 + random.below(isFull ? 3000 : 900);
        const start = performance.now();
        const replies = kind.name === "stall" ? nics.other : nics.first;
        nic.mode = kind.mode;
        if (kind.name === "stall") process.kill(slow.pid, "SIGSTOP");
        if (kind.guest === "reset") await guest.check(`(${RESET()}) >/dev/null 2>&1 &`);
        await sleep(start + hold - performance.now());
        const held = Math.round(performance.now() - start);
        nic.mode = "honest";
        if (kind.name === "stall") process.kill(slow.pid, "SIGCONT");
        await replies.flow(
          60_000,
          () =>
            `after failure ${n} (${kind.name}, seed ${SEED}): ${guest.serialLog().slice(-1000)}`,
        );
        gaps.push({ kind: kind.name, held, without: Math.round(replies.longestGapSince(start)) });
      }
    } finally {
      nic.mode = "honest";
      process.kill(slow.pid, "SIGCONT");
      for (const replies of Object.values(nics)) replies.stop();
      const sorted = gaps.map(({ without }) => without).sort((a, b) => a - b);
      const [median, maximum] = [sorted[sorted.length >> 1], sorted.at(-1)];
      t.diagnostic(JSON.stringify({ seed: SEED, failures: gaps.length, median, maximum, gaps }));
    }
    await guest.check(REACHED);
    t.diagnostic(await guest.check("ethtool -S eth0 | sed -n 1,12p"));
    assert.doesNotMatch(await guest.check("dmesg"), ALARM);
  });
});

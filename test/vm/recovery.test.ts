/**
 * A NIC whose device fails for a while, is reset or forgets everything: it works again by itself,
 * and its removal meanwhile leaves nothing behind.
 */
import assert from "node:assert/strict";
import { appendFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { packageRoot } from "../../src/vm/guest-parts.ts";
import { ALARM } from "../support/vm/alarms.ts";
import { diagnosis } from "../support/vm/diagnosis.ts";
import { type Failure, failures, type Gap, gapTable } from "../support/vm/failures.ts";
import {
  buildModule,
  type Guest,
  Netns,
  patience,
  prepareGuest,
  sleep,
  startGuest,
  until,
} from "../support/vm/harness.ts";
import { LyingNic } from "../support/vm/liar/lying-nic.ts";
import { Random } from "../support/vm/liar/random.ts";
import { ServedNic } from "../support/vm/nic.ts";
import { MODULE, modulePath } from "../support/vm/nic-guest.ts";
import { Replies } from "../support/vm/replies.ts";
import { isFull, withoutVm } from "../support/vm/requirements.ts";

const skip = await withoutVm();
const UNBINDS = isFull ? 50 : 2;
const HOST = "10.88.0.1";
const PEER = "10.88.0.2";
const FAILURES = Number(process.env.BPFHV_FAILURES ?? (isFull ? 200 : 6));
const SEED = Number(process.env.BPFHV_SEED ?? 1);
/** Stops of a server after which the guest has given its device up. */
const LONG_STALLS = isFull ? 3 : 0;
const PATIENT_KERNEL = "rcupdate.rcu_cpu_stall_timeout=120 nosoftlockup";
/** A file to which each gap is appended, as a line of JSON. */
const GAPS = process.env.BPFHV_GAPS;
/** Addresses of the NIC whose server stalls. */
const OTHER_HOST = "10.89.0.1";
const OTHER_PEER = "10.89.0.2";

const NO_MEMORY = "/modules/bpfhv_no_memory.ko";
const FAIL = "/sys/module/bpfhv_no_memory/parameters/fail";
const DRIVER = "/sys/bus/pci/drivers/bpfhv";

describe("NIC that recovers", { skip, timeout: patience(isFull ? 2_700_000 : 150_000) }, () => {
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
    const [noMemory] = await buildModule(join(packageRoot(), "test/vm/memory-module"));
    assert.ok(noMemory !== undefined, "the module was built");
    nic = await LyingNic.start(
      { kind: "tap", tap: "tap0", netns: netns.name, create: false },
      SEED,
      { device: "sring_gso" },
    );
    slow = await ServedNic.start(`--net=tap:tap1,netns=${netns.name}`, "--answer-delay", "5");
    guest = await startGuest({
      sockets: [nic.socket, slow.socket],
      // Work that runs on memory that was freed finds zeros there, and ends in an oops.
      // A long stall stops the whole guest for longer than its kernel expects of a CPU.
      append: `init_on_free=1 ${LONG_STALLS > 0 ? PATIENT_KERNEL : ""}`,
      extraFiles: { [MODULE]: await modulePath(), [NO_MEMORY]: noMemory },
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

  test("driver takes a device that was left enabled, in either version of the ABI", async () => {
    let kept = 0;
    for (const abi of ["version1=1 allow_unverified=1", "", ""]) {
      await guest.check("ethtool -K eth0 rx off");
      // What the driver writes when it is removed does not reach the device.
      nic.mode = "unreachable";
      await guest.check("ethtool -d eth0 >/dev/null; rmmod bpfhv");
      nic.mode = "honest";
      kept++;
      assert.equal(
        (await guest.check("dmesg")).split("buffers: they are never freed").length,
        kept + 1,
      );
      await guest.check(`insmod ${MODULE} ${abi}; ${UP}`);
      await guest.check(REACHED);
      // Version 1 does not tell which features there are besides those that were selected.
      if (abi === "") assert.match(await guest.check("ethtool -k eth0"), /rx-checksumming: on/);
    }
  });

  test("interface goes on with its set when another cannot be fetched for ethtool -K", async () => {
    const generation = await counter("generation");
    nic.mode = "no programs";
    try {
      await guest.run("ethtool -K eth0 rx off");
      await until(5000, "another set is asked for", () => nic.told("no programs") > 0);
      // The device still ships no programs.
      await guest.check(REACHED);
      await until(5000, "the feature is on again", async () =>
        (await guest.check("ethtool -k eth0")).includes("rx-checksumming: on"),
      );
    } finally {
      nic.mode = "honest";
    }
    assert.equal(await counter("generation"), generation);
    await guest.check(`ethtool -K eth0 rx off; ${REACHED}; ethtool -K eth0 rx on; ${REACHED}`);
  });

  /**
   * Runs a command that has a set loaded, and meanwhile configures another interface.
   * @returns the times until the set is verified, and the longest of that, in 10 ms
   */
  async function whileLoading(command: string): Promise<[number, number]> {
    const output = await guest.check(
      `now() { read up rest </proc/uptime; now=\${up%.*}\${up#*.}; }
       sets() { dmesg | grep -c "programs verified"; }
       first=$(sets); most=0; now; start=$now
       (${command}) >/dev/null 2>&1 &
       while [ $(sets) = $first ]; do
         now; from=$now
         ip link show eth1 >/dev/null; ip addr replace ${OTHER_PEER}/24 dev eth1
         now; [ $((now - from)) -le $most ] || most=$((now - from))
       done
       now; wait; echo $((now - start)) $most`,
      { timeoutMs: 60_000 },
    );
    return output.trim().split(" ").map(Number) as [number, number];
  }

  test("other interface is configured at once while a set is verified", async (t) => {
    nic.mode = "slow programs";
    try {
      for (const [what, command] of [
        ["an upgrade", "true"],
        ["ethtool -K", "ethtool -K eth0 rx off"],
        ...(isFull ? [["recovery", RESET()]] : []),
      ] as const) {
        const [load, wait] = await whileLoading(command);
        t.diagnostic(`${what}: ${10 * load} ms, longest wait ${10 * wait} ms`);
        assert.ok(load > 50, `${what}: the set was verified in ${10 * load} ms`);
        assert.ok(wait < load / 2, `${what}: ${10 * wait} of ${10 * load} ms`);
        await guest.check(REACHED);
      }
    } finally {
      nic.mode = "honest";
    }
    await guest.check(`ethtool -K eth0 rx on; ${REACHED}`);
    assert.match(await guest.check("ethtool -k eth0"), /rx-checksumming: on/);
  });

  /** @returns what may be over after the failure only: the whole guest waits for the register */
  async function begin({ mode, guest: what, stall }: Failure): Promise<Promise<unknown>[]> {
    nic.mode = mode;
    if (stall !== null) process.kill(slow.pid, "SIGSTOP");
    if (what === "no memory") await guest.check(`echo Y >${FAIL}`);
    if (what !== null) await guest.check(`(${RESET()}) >/dev/null 2>&1 &`);
    return stall === "read" ? [guest.check("ethtool -d eth1 >/dev/null 2>&1 &")] : [];
  }

  async function end({ guest: what }: Failure): Promise<void> {
    nic.mode = "honest";
    process.kill(slow.pid, "SIGCONT");
    if (what === "no memory") await guest.check(`echo N >${FAIL}`);
  }

  /** Lets it fail, for a while. @returns the longest time without replies, in milliseconds */
  async function fail(failure: Failure, forMs: number, replies: Replies): Promise<number> {
    const start = performance.now();
    let left: Promise<unknown>[] = [];
    try {
      left = await begin(failure);
      await sleep(start + forMs - performance.now());
    } finally {
      await end(failure);
    }
    await Promise.allSettled(left);
    const known = async () => `after ${failure.name}:${await diagnosis(guest, [slow])}`;
    await replies.flow(60_000, known);
    return replies.longestGapSince(start);
  }

  test(`traffic flows again by itself after each of ${FAILURES} failures`, async (t) => {
    const random = new Random(SEED);
    t.diagnostic(`seed ${SEED}`);
    await guest.check(`insmod ${NO_MEMORY}`);
    await guest.check(`ip addr add ${OTHER_PEER}/24 dev eth1; ip link set eth1 up`);
    // A NIC that only receives is not noticed to have lost its device.
    await guest.check(`ping -q -i 0.2 ${HOST} >/dev/null 2>&1 &`);
    const one = new Replies(netns, ping, PEER);
    const other = new Replies(netns, ping, OTHER_PEER);
    const gaps: Gap[] = [];
    try {
      await one.flow(10_000);
      await other.flow(10_000);
      for (const failure of failures(random, FAILURES, LONG_STALLS)) {
        const forMs = failure.forMs || 100 + random.below(isFull ? 2000 : 700);
        const ms = await fail(failure, forMs, failure.stall ? other : one);
        const gap: Gap = { kind: failure.name, ms, forMs };
        gaps.push(gap);
        if (GAPS)
          appendFileSync(GAPS, `${JSON.stringify({ n: gaps.length, seed: SEED, ...gap })}\n`);
      }
    } finally {
      one.stop();
      other.stop();
      for (const line of gapTable(gaps).split("\n")) t.diagnostic(line);
    }
    await guest.check(REACHED);
    const failed = Number(await guest.check("cat /sys/module/bpfhv_no_memory/parameters/failed"));
    assert.ok(failed > 0, "allocations failed");
    t.diagnostic(await guest.check("ethtool -S eth0 | sed -n 4,9p"));
    const { lateAnswers } = (await slow.status()).transport;
    assert.ok(lateAnswers > 0, "a read was answered too late for its data");
    assert.doesNotMatch(await guest.check("dmesg"), ALARM);
  });
});

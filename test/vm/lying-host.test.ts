/** A misbehaving host affects only this NIC of the guest, and only while it misbehaves. */
import assert from "node:assert/strict";
import type { ChildProcess } from "node:child_process";
import { after, before, describe, test } from "node:test";
import { assertNoAlarm, assertNoLeak } from "../support/vm/alarms.ts";
import { untilAnswered } from "../support/vm/first-answer.ts";
import {
  type Guest,
  isDebugKernel,
  Netns,
  patience,
  prepareGuest,
  startGuest,
  until,
  within,
} from "../support/vm/harness.ts";
import { LyingNic } from "../support/vm/liar/lying-nic.ts";
import type { Mode } from "../support/vm/liar/modes.ts";
import { MODULE, modulePath } from "../support/vm/nic-guest.ts";
import { isFull, withoutVm } from "../support/vm/requirements.ts";

const skip = await withoutVm();

/** Factor of lies in a --full run; smaller in a debug kernel, in which probes take long. */
const LENGTH = isFull ? (isDebugKernel ? 6 : 20) : isDebugKernel ? 2 : 1;
/** Some two seconds each, with hundreds of lies. */
const RING_ROUNDS = isFull ? 40 : 2;
/** The default run has the tests without traffic over the lying NIC. */
const skipTraffic = isFull || isDebugKernel ? false : "a long run: script/test --full";
const SEED = Number(process.env.BPFHV_SEED ?? 1);
const DRIVER = "/sys/bus/pci/drivers/bpfhv";
/** MAC address of the other NIC, a virtio one. */
const OTHER_MAC = "52:54:00:00:00:77";
const OTHER_HOST = "10.89.0.1";
const OTHER_PEER = "10.89.0.2";
const PEER = "10.88.0.2";
const HOST = "10.88.0.1";

/**
 * Shell functions at the start of all scripts: `lying` is the
 * interface of the lying NIC, if it exists.
 */
const PROLOGUE = `
bind() { echo $DEVICE >${DRIVER}/bind 2>/dev/null; }
unbind() { echo $DEVICE >${DRIVER}/unbind 2>/dev/null; true; }
lying() { ls /sys/bus/pci/devices/$DEVICE/net 2>/dev/null; }
up() { ip addr add ${PEER}/24 dev $(lying) && ip link set $(lying) up; }
# Nobody answers a liar's address resolution.
known() { ip neigh replace ${HOST} lladdr 52:54:00:11:22:33 dev $(lying); }
# A stopped queue makes ping wait for room in its socket.
send() { timeout 2 ping -q -i 0.01 -W 1 -c $* ${HOST} >/dev/null 2>&1; true; }
# Sum of all counters of the interface that end so.
count() { ethtool -S $(lying) | awk -v name="$1" '$1 ~ name ":$" { n += $2 } END { print n + 0 }'; }
`;

const seconds = (since: number): number => (performance.now() - since) / 1000;

/** Returns the numbers of the last line. */
const lastLine = (output: string): number[] =>
  output.trim().split("\n").at(-1)?.split(" ").map(Number) ?? [];

describe("misbehaving host", { skip, timeout: patience(isFull ? 2_400_000 : 220_000) }, () => {
  let netns: Netns;
  let nic: LyingNic;
  let guest: Guest;
  let neighbour: ChildProcess;
  let neighbourSays = "";
  let device = "";

  const run = (script: string, timeoutMs = 60_000) =>
    guest.check(`DEVICE=${device}${PROLOGUE}${script}`, {
      timeoutMs: timeoutMs * (isFull ? 4 : 1),
    });

  /** Probes repeatedly. @returns the number of successful probes, and of matching log lines */
  async function probes(mode: Mode, count: number, pattern: string): Promise<[number, number]> {
    nic.mode = mode;
    const output = await run(
      // The kernel's log holds a few hundred lines: it is read after each probe.
      `unbind; dmesg -c >/dev/null; n=0; lines=0;
       for i in $(seq ${count}); do
         bind && n=$((n + 1)); unbind; lines=$((lines + $(dmesg -c | grep -cE '${pattern}')));
       done; echo $n $lines`,
      120_000,
    );
    nic.mode = "honest";
    return lastLine(output) as [number, number];
  }

  /** Checks that packets go both ways without loss once the host is honest. */
  async function recovers(): Promise<void> {
    nic.mode = "honest";
    if (!isFull) return;
    await run(`unbind; bind && up\n${untilAnswered(HOST)}`);
    assert.match(await run(`ping -q -c 20 -i 0.02 -W 5 ${HOST}`), / 0% packet loss/);
  }

  before(async () => {
    const parts = await prepareGuest();
    netns = Netns.make("liar");
    netns.addTap({ name: "tap0", address: `${HOST}/24` });
    netns.addTap({ name: "tap1", address: `${OTHER_HOST}/24` });
    nic = await LyingNic.start(
      { kind: "tap", tap: "tap0", netns: netns.name, create: false },
      SEED,
    );
    guest = await startGuest({
      sockets: [nic.socket],
      virtioNics: [{ tap: "tap1", netns: netns.name, mac: OTHER_MAC }],
      smp: 2,
      memoryMiB: 768,
      extraFiles: { [MODULE]: await modulePath() },
    });
    const grep = "grep -l 0x0b9f /sys/bus/pci/devices/*/device";
    device = (await guest.check(`basename $(dirname $(${grep}))`)).trim();
    await guest.check(
      `other=$(basename $(dirname $(grep -l ${OTHER_MAC} /sys/class/net/*/address)));
       ip addr add ${OTHER_PEER}/24 dev $other; ip link set $other up; insmod ${MODULE}`,
    );
    netns.exec(["sh", "-c", untilAnswered(OTHER_PEER, { ping: parts.ping })], patience(30_000));
    neighbour = netns.spawn([parts.ping, "-q", "-i", "0.1", OTHER_PEER]);
    neighbour.stdout?.on("data", (text) => {
      neighbourSays += text;
    });
  });

  after(async () => {
    neighbour?.kill("SIGKILL");
    await guest?.close();
    await nic?.stop();
    netns?.close();
  });

  test("probe fails with its reason when a register is impossible", async () => {
    const count = 30 * LENGTH;
    const [bound, explained] = await probes(
      "impossible registers",
      count,
      "ABI version|unsupported|do not fit|failed|no context|refused|allow_unverified",
    );
    // The driver reads a register of all ones twice.
    const told = nic.told("impossible registers");
    assert.ok(told >= count && told <= 2 * count, `${told} lies`);
    assert.equal(bound, 0, "probes that succeeded");
    assert.ok(explained >= count, `${explained} lines of log about ${count} lies`);
    await recovers();
  });

  test("probes end when registers return random values and writes are lost", async () => {
    await probes("random registers", 20 * LENGTH, "bpfhv");
    assert.ok(nic.told("random registers") >= 5 * LENGTH);
    await recovers();
  });

  test("set is refused with the program's name when a program is forbidden", async () => {
    const count = 40 * LENGTH;
    const [bound, explained] = await probes(
      "forbidden programs",
      count,
      "refused at instruction|refused by the kernel|fetching the programs failed|has no program",
    );
    assert.equal(nic.told("forbidden programs"), count);
    assert.equal(bound, 0, "sets that were accepted");
    assert.equal(explained, count, "refusals in the log");
    await recovers();
  });

  test("set is refused when a program may run long although the kernel would verify it", async () => {
    const [bound, explained] = await probes("long programs", 1, "rxc refused at instruction 0");
    assert.equal(nic.told("long programs"), 1);
    assert.deepEqual([bound, explained], [0, 1]);
    await recovers();
  });

  test("set with flipped bits is refused or harmless", { skip: skipTraffic }, async () => {
    nic.mode = "flipped programs";
    await run(
      `unbind; for i in $(seq ${8 * LENGTH}); do bind && up && known && send 8; unbind; done`,
      120_000,
    );
    assert.ok(nic.told("flipped programs") >= 8 * LENGTH);
    await recovers();
  });

  test("queue stops, counts an error and restarts when programs lie about packets", {
    skip: skipTraffic,
  }, async () => {
    nic.mode = "lying programs";
    const output = await run(
      `unbind; e=0; r=0; for i in $(seq ${8 * LENGTH}); do bind && up && known; send 20
       e=$((e + $(count errors))); r=$((r + $(count resets))); unbind; done; echo $e $r`,
      180_000,
    );
    const [errors, resets] = lastLine(output);
    assert.ok(nic.told("lying programs") >= 8 * LENGTH);
    assert.ok(errors >= 2 * LENGTH, `${errors} errors counted`);
    assert.ok(resets >= 1, `${resets} resets`);
    await recovers();
  });

  test("driver counts errors and resets when the host corrupts contexts", {
    skip: skipTraffic,
  }, async () => {
    await recovers();
    await run("known");
    nic.mode = "rings";
    let errors = 0;
    let resets = 0;
    for (let n = 0; n < RING_ROUNDS; n++) {
      const output = await run("send 100; echo $(count errors) $(count resets)");
      [errors, resets] = lastLine(output);
    }
    assert.ok(nic.told("rings") >= 100 * RING_ROUNDS, `${nic.told("rings")} lies`);
    assert.ok(errors >= LENGTH, `${errors} errors counted`);
    assert.ok(resets >= LENGTH, `${resets} resets`);
    await recovers();
  });

  test("NIC keeps working during spurious interrupts and an upgrade storm", {
    skip: skipTraffic,
  }, async () => {
    await recovers();
    nic.mode = "interrupts";
    await run(`sleep ${LENGTH}`, 60_000);
    assert.ok(nic.told("interrupts") >= 50 * LENGTH);
    const started = performance.now();
    nic.mode = "upgrade storm";
    await run(`sleep ${2 * LENGTH}`, 60_000);
    assert.ok(nic.told("upgrade storm") >= 10 * LENGTH);
    nic.mode = "honest";
    // Counted over the duration of the storm and one more second.
    const [upgrades, delayed] = lastLine(
      await run("echo $(count upgrades) $(count upgrades_delayed)"),
    );
    // An emulated guest takes so long for each upgrade that it mostly limits them itself.
    console.log(`${upgrades} upgrades, ${delayed} delayed`);
    assert.ok(upgrades > 0 && upgrades <= 10 * (seconds(started) + 2), `${upgrades} upgrades`);
    await until(20_000, "the last upgrade", async () => {
      return (await guest.run(`ping -q -c 5 -i 0.05 -W 2 ${HOST}`)).output.includes(" 0% packet");
    });
  });

  test("NIC recovers with a valid set after upgrades to lying and forbidden sets", {
    skip: skipTraffic,
  }, async () => {
    await recovers();
    nic.mode = "bad upgrades";
    await run(
      `known; for i in $(seq ${2 * LENGTH}); do ip link set $(lying) up; send 50; done; true`,
    );
    assert.ok(nic.told("bad upgrades") >= 2);
    await recovers();
  });

  test("transmit queue keeps its packets when the host takes none for 10 s, and is reset after 30 s", {
    skip: skipTraffic,
  }, async () => {
    await recovers();
    // Many senders, because each may have only a few unsent packets: more than the ring holds, for
    // kernels without byte limits.
    const fill = "known; for i in $(seq 80); do send 5 -s 1400 & done; wait";
    const sent = () => run("count tx0_packets");
    nic.mode = "silence";
    await run(fill);
    // The kernel checks every five seconds or so whether a queue has been stopped for five seconds.
    await until(20_000, "two timeouts", async () => Number(await run("count timeouts")) >= 2);
    assert.equal(Number(await run("count resets")), 0);
    const before = Number(await sent());
    nic.mode = "honest";
    await until(10_000, "what waited is sent", async () => Number(await sent()) > before);
    assert.equal(Number(await run("count resets")), 0);
    assert.equal(Number(await run("count tx0_dropped")), 0);
    nic.mode = "silence";
    const from = guest.serialLog().length;
    await run(fill);
    await guest.waitForSerial(/timed out: \d+ of \d+ buffers outstanding/, 60_000, from);
    await guest.waitForSerial(/device: sring\.txq cl \d+/, 20_000, from);
    await until(10_000, "a reset", async () => Number(await run("count resets")) >= 1);
    nic.mode = "honest";
    // What the reset dropped must not count against the queue's limit.
    await until(10_000, "an end of bytes in flight", async () => {
      return (
        Number(await run("cat /sys/class/net/$(lying)/queues/tx-0/byte_queue_limits/inflight")) ===
        0
      );
    });
    await recovers();
  });

  test("driver detaches from a device that is gone, and probes it again", {
    skip: skipTraffic,
  }, async () => {
    await recovers();
    for (let n = 0; n < LENGTH; n++) {
      nic.mode = "gone";
      await run(
        "ip link set $(lying) down; ip link set $(lying) up; ethtool -S $(lying); unbind; bind; true",
      );
      await recovers();
    }
    assert.match(guest.serialLog(), /the device is gone/);
  });

  test("other NIC carries its packets throughout, and the kernel raises no alarm", async () => {
    const closed = new Promise((resolve) => neighbour.once("close", resolve));
    neighbour.kill("SIGINT");
    await within(5000, "ping's summary", closed);
    const [, sent, received] =
      /(\d+) packets transmitted, (\d+) received/.exec(neighbourSays) ?? [];
    assert.ok(Number(sent) > 30, neighbourSays);
    assert.ok(Number(received) >= 0.99 * Number(sent), `${received} of ${sent} pings`);
    console.log(
      `${nic.toldInAll} lies told, ${received} of ${sent} pings of the other NIC answered`,
    );
    assert.ok(nic.toldInAll >= (isFull ? 10_000 : 75), `${nic.toldInAll} lies in all`);
    await guest.check("rmmod bpfhv");
    assertNoAlarm(guest);
    await assertNoLeak(guest);
    assert.equal(guest.boots, 1);
    assert.equal((await guest.close()).aborted, false);
  });
});

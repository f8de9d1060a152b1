/**
 * Misbehaving hosts of every type at once: each device, two queue pairs, version 1 of the ABI; and
 * a host that does not reply at all. `lying-host.test.ts` tests the lies one by one.
 */
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { assertNoAlarm, assertNoLeak } from "../support/vm/alarms.ts";
import { untilAnswered } from "../support/vm/first-answer.ts";
import { type Guest, isDebugKernel, Netns, patience, startGuest } from "../support/vm/harness.ts";
import { LyingNic } from "../support/vm/liar/lying-nic.ts";
import type { Mode } from "../support/vm/liar/modes.ts";
import { MODULE, modulePath } from "../support/vm/nic-guest.ts";
import { isFull, withoutVm } from "../support/vm/requirements.ts";

const why = await withoutVm();
const isLong = isFull || isDebugKernel;
const skip = why === false && !isLong ? "a long run: script/test --full" : why;

const SEED = Number(process.env.BPFHV_SEED ?? 1);
const OTHER_MAC = "52:54:00:00:00:77";
const OTHER_HOST = "10.89.0.1";
const ROUNDS = 5;

/** In the order of their PCI addresses. */
const KINDS = [
  { device: "sring_gso", pairs: 1 },
  { device: "vring_packed", pairs: 1 },
  { device: "sring", pairs: 2 },
] as const;

/** The host's address of a lying NIC's network; the guest has .2. */
const host = (i: number) => `10.88.${i}.1`;

/** Start of all scripts. `$i` counts lying NICs, `$d` is the PCI address of NIC i. */
const PROLOGUE = `
cd /sys/bus/pci/drivers
lying() { ls /sys/bus/pci/devices/$d/net 2>/dev/null; }
each() { i=0; for f in $(grep -l 0x0b9f /sys/bus/pci/devices/*/device); do d=$(basename $(dirname $f)); "$@"; i=$((i + 1)); done; }
bind() { [ -e bpfhv/$d ] || echo $d >bpfhv/bind; } 2>/dev/null
unbind() { [ ! -e bpfhv/$d ] || echo $d >bpfhv/unbind; } 2>/dev/null
up() { ip addr add 10.88.$i.2/24 dev $(lying); ip link set $(lying) up; } 2>/dev/null
known() { ip neigh replace 10.88.$i.1 lladdr 52:54:00:11:22:33 dev $(lying); } 2>/dev/null
send() { timeout 2 ping -q -i 0.01 -W 1 -c 60 10.88.$i.1 & timeout 2 ping -q -s 1400 -i 0.01 -W 1 -c 60 10.88.$i.1 & } >/dev/null 2>&1
count() { ethtool -S $(lying) 2>/dev/null | awk -v name="$1" '$1 ~ name ":$" { n += $2 } END { printf "%d ", n }'; }
`;

describe("liars of every kind", { skip, timeout: patience(700_000) }, () => {
  let netns: Netns;
  let nics: LyingNic[] = [];
  let guest: Guest;

  const run = (script: string, timeoutMs = 120_000) =>
    guest.check(PROLOGUE + script, { timeoutMs });
  const numbers = async (name: string): Promise<number[]> =>
    (await run(`each count ${name}`)).trim().split(/\s+/).map(Number);
  const setMode = (mode: Mode) => {
    for (const nic of nics) nic.mode = mode;
  };
  const toldBy = (mode: Mode) => nics.map((nic) => nic.told(mode));

  /** Checks that all NICs carry packets without loss once they are honest. */
  async function recover(): Promise<void> {
    setMode("honest");
    await run("each unbind; each bind; each up; sleep 1");
    for (const [i] of KINDS.entries()) {
      const { output } = await guest.run(
        `${untilAnswered(host(i))}\nping -q -c 20 -i 0.02 -W 5 ${host(i)}`,
      );
      assert.match(output, /20 received, 0% packet loss/, `liar ${i}, honest: ${output}`);
    }
  }

  /** Lets all NICs lie under traffic. @returns the errors counted by each NIC's driver */
  async function lieUnderTraffic(mode: Mode): Promise<number[]> {
    await recover();
    await run("each known");
    setMode(mode);
    let errors = KINDS.map(() => 0);
    for (let n = 0; n < ROUNDS; n++) {
      await run("each bind; each up; each known; each send; wait");
      const now = await numbers("errors");
      errors = errors.map((before, i) => Math.max(before, now[i] ?? 0));
    }
    return errors;
  }

  before(async () => {
    netns = Netns.make("kinds");
    for (const [i, { pairs }] of KINDS.entries())
      netns.addTap({ name: `tap${i}`, address: `${host(i)}/24`, multiQueue: pairs > 1 });
    netns.addTap({ name: "other", address: `${OTHER_HOST}/24` });
    nics = await Promise.all(
      KINDS.map((kind, i) =>
        LyingNic.start(
          { kind: "tap", tap: `tap${i}`, netns: netns.name, create: false },
          SEED + i,
          kind,
        ),
      ),
    );
    guest = await startGuest({
      sockets: nics.map((nic) => nic.socket),
      virtioNics: [{ tap: "other", netns: netns.name, mac: OTHER_MAC }],
      smp: 2,
      memoryMiB: 768,
      extraFiles: { [MODULE]: await modulePath() },
    });
    await guest.check(
      `other=$(basename $(dirname $(grep -l ${OTHER_MAC} /sys/class/net/*/address)));
       ip addr add 10.89.0.2/24 dev $other; ip link set $other up; insmod ${MODULE}`,
    );
  });

  after(async () => {
    await guest?.close();
    for (const nic of nics) await nic.stop();
    netns?.close();
  });

  for (const version of ["its own", "1"]) {
    describe(`ABI: ${version}`, () => {
      if (version === "1") {
        test("is loaded so", async () => {
          setMode("honest");
          await run(`rmmod bpfhv; insmod ${MODULE} version1=1 allow_unverified=1; each up`);
          assert.deepEqual(await numbers("verified"), [0, 0, 0]);
        });
      }

      test("contexts scribbled on: counted, and reset", async () => {
        const before = toldBy("rings");
        const errors = await lieUnderTraffic("rings");
        const resets = await numbers("resets");
        for (const [i, { device }] of KINDS.entries()) {
          assert.ok(nics[i].told("rings") - before[i] > 20 * ROUNDS, `${device} lied too little`);
          assert.ok(errors[i] > 0, `${device}: errors ${errors}`);
          assert.ok(resets[i] > 0, `${device}: resets ${resets}`);
        }
        await recover();
      });

      test("interrupts without work, one upgrade after the other, silence, all ones", async () => {
        for (const mode of ["interrupts", "upgrade storm", "silence", "gone"] as const) {
          const before = toldBy(mode);
          await lieUnderTraffic(mode);
          // A lie that is not sent cannot be counted.
          if (mode !== "silence")
            for (const [i, told] of toldBy(mode).entries())
              assert.ok(told > before[i], `${KINDS[i].device}: ${mode}`);
          await recover();
        }
      });
    });
  }

  test("programs that lie about packets, of each device", async () => {
    setMode("honest");
    await run(`rmmod bpfhv; insmod ${MODULE}`);
    setMode("lying programs");
    const errors = KINDS.map(() => 0);
    for (let n = 0; n < ROUNDS; n++) {
      await run("each unbind; each bind; each up; each known; each send; wait");
      for (const [i, count] of (await numbers("errors")).entries()) errors[i] += count;
    }
    for (const [i, { device }] of KINDS.entries()) assert.ok(errors[i] > 0, `${device}: ${errors}`);
    await recover();
  });

  test("reads that are never answered: the guest lives, and the others' NIC carries packets", async () => {
    await recover();
    nics[0].mode = "mute";
    // QEMU answers all ones in the liar's place, five seconds later each time.
    await run(
      "i=0; d=$(basename $(dirname $(grep -l 0x0b9f /sys/bus/pci/devices/*/device | head -n 1))); ip link set $(lying) down; true",
    );
    assert.match(guest.serialLog(), /the device is gone/);
    nics[0].mode = "honest";
    for (const address of [OTHER_HOST, host(1)]) {
      const { output } = await guest.run(
        `${untilAnswered(address)}\nping -q -c 20 -i 0.05 -W 5 ${address}`,
      );
      assert.match(output, /20 received, 0% packet loss/);
    }
    await guest.check("rmmod bpfhv");
  });

  test("the kernel raised no alarm", async (t) => {
    t.diagnostic(`${nics.reduce((sum, nic) => sum + nic.toldInAll, 0)} lies told`);
    await guest.run("rmmod bpfhv");
    assertNoAlarm(guest);
    await assertNoLeak(guest);
    assert.equal(guest.boots, 1);
    assert.equal((await guest.close()).aborted, false);
  });
});

/** The sets of three NICs of one guest are replaced at once, one NIC with eight queue pairs. */
import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { request } from "../../src/cli/ask-nic.ts";
import { ALARM } from "../support/vm/alarms.ts";
import { untilAnswered } from "../support/vm/first-answer.ts";
import { type Guest, Netns, patience, startGuest } from "../support/vm/harness.ts";
import { ServedNic } from "../support/vm/nic.ts";
import { MODULE, modulePath } from "../support/vm/nic-guest.ts";
import { buildNumbered, NUMBERED, NumberedFlows, WHOLE } from "../support/vm/numbered-flows.ts";
import { faultsOf, NO_DROPS } from "../support/vm/numbered-load.ts";
import { isFull, withoutVm } from "../support/vm/requirements.ts";

const skip = isFull ? await withoutVm() : "long: script/test --full";
const PAIRS = [8, 2, 1];
const FORMATS = ["sring", "vring_packed", "sring_gso"];
const ROUNDS = 30;
const RATE = 200;
const BURST = 16;
const LIMIT = { timeoutMs: patience(30_000) };

interface Nic {
  readonly served: ServedNic;
  readonly host: string;
  readonly peer: string;
}

async function serve(netns: Netns, n: number): Promise<Nic> {
  const [host, peer] = [`10.88.${n}.1`, `10.88.${n}.2`];
  netns.addTap({ name: `tap${n}`, address: `${host}/24`, multiQueue: PAIRS[n] > 1 });
  const served = await ServedNic.start(
    ...[`--net=tap:tap${n},netns=${netns.name}`, `--queues=${PAIRS[n]}`, "--device=sring_gso"],
    ...[`--rate=tx-packets=${RATE}/4`, `--mac=52:54:00:b9:f2:0${n}`, "--allow-unverified"],
  );
  return { served, host, peer };
}

async function configure(guest: Guest, { host, peer }: Nic, n: number): Promise<void> {
  const path = await guest.check(`grep -l 52:54:00:b9:f2:0${n} /sys/class/net/*/address`);
  const dev = path.trim().split("/")[4];
  await guest.check(`ip addr add ${peer}/24 dev ${dev} && ip link set ${dev} up`);
  // For good: what waits for an answer to ARP is sent by the CPU that gets it, on that one's queue.
  const address = `arp -n ${host} | grep -oE '([0-9a-f]{2}:){5}[0-9a-f]{2}'`;
  await guest.check(`${untilAnswered(host)}\narp -s ${host} $(${address})`);
}

test("three NICs lose no packet when their sets are replaced at once", {
  skip,
  timeout: patience(400_000),
}, async (t) => {
  const folder = mkdtempSync(join(tmpdir(), "bpfhv-several-"));
  const program = buildNumbered(folder);
  const netns = Netns.make("several");
  const nics: Nic[] = [];
  try {
    for (const n of PAIRS.keys()) nics.push(await serve(netns, n));
    const guest = await startGuest({
      sockets: nics.map(({ served }) => served.socket),
      smp: 2,
      extraFiles: { [MODULE]: await modulePath(), [NUMBERED]: program },
    });
    try {
      await guest.check(`${NO_DROPS}; insmod ${MODULE}`);
      for (const [n, nic] of nics.entries()) await configure(guest, nic, n);
      const flows = [];
      for (const [n, link] of nics.entries()) {
        const options = { program, rate: RATE, burst: BURST, port: 5400 + n, cpu: n % 2 };
        flows.push(await NumberedFlows.start({ guest, netns, link }, options));
      }
      const inFlight: number[] = [];
      for (let round = 0; round < ROUNDS; round++) {
        const each = nics.map(async ({ served }, n) => {
          const body = { device: FORMATS[(round + n) % FORMATS.length], rxBufs: 64 << (round % 4) };
          await request(served.socket, { method: "PATCH", body }, LIMIT);
          const { upgrade } = await served.status();
          assert.equal(upgrade?.state, "done");
          inFlight.push(upgrade.inFlight);
        });
        await Promise.all(each);
      }
      const ends = [];
      for (const flow of flows) await flow.endSending();
      for (const flow of flows) ends.push(...(await flow.stop()));
      t.diagnostic(`in flight: ${inFlight}; sent: ${ends.map(({ sent }) => sent)}`);
      assert.deepEqual(faultsOf(ends), WHOLE);
      assert.ok(inFlight.filter((count) => count > 0).length >= inFlight.length / 2);
      assert.doesNotMatch(await guest.check("dmesg"), ALARM);
    } finally {
      await guest.close();
    }
    assert.equal((await guest.exit).aborted, false);
  } finally {
    for (const { served } of nics) await served.stop();
    netns.close();
    rmSync(folder, { recursive: true, force: true });
  }
});

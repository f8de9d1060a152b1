/** `bpfhv upgrade` replaces the set of a running NIC in a real guest, and no packet is lost. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { request } from "../../src/cli/ask-nic.ts";
import type { NicSpec } from "../../src/control/spec.ts";
import { DROP_COUNTERS } from "../../src/memory/counters.ts";
import { ALARM } from "../support/vm/alarms.ts";
import { transferChecked } from "../support/vm/checked-tcp.ts";
import { patience, sleep } from "../support/vm/harness.ts";
import { NicGuest } from "../support/vm/nic-guest.ts";
import { buildNumbered, NUMBERED, WHOLE } from "../support/vm/numbered-flows.ts";
import { faultsOf, NO_DROPS, NumberedLoad } from "../support/vm/numbered-load.ts";
import { isFull, withoutVm } from "../support/vm/requirements.ts";
import { Successors } from "../support/vm/successors.ts";

const skip = await withoutVm();
/** Datagrams per second, of each flow and direction, and how many of them at once. */
const RATE = 500;
const BURSTS = [32, 32];
/** Every ordered pair of formats, each with itself, too. The last is the first. */
const ROUND = [
  ...["sring_gso", "sring", "sring", "vring_packed", "vring_packed", "sring_gso", "sring_gso"],
  ...["vring_packed", "sring", "sring_gso"],
];
const UPGRADES = (isFull ? 10 : 1) * (ROUND.length - 1);
const SIZES = [64, 256, 32, 1024];
const TAKE_OVERS = isFull ? 20 : 2;
const RESTARTS = isFull ? 3 : 1;
/** TCP has more to send than this, so large packets wait in the rings and in the TAP. */
const TCP_RATE = "tx-bytes=1M/70k,rx-bytes=1M/70k";
/** Receive buffers for two of the largest packets: what waits beyond them is split by the host. */
const FEW = 64;
const LARGE_CUTS = 10;
const LIMIT = { timeoutMs: patience(30_000) };
const MAIN = fileURLToPath(new URL("../../src/cli/main.js", import.meta.url));
const HOST_HALF = new URL("../../src/devices/sring/host.js", import.meta.url).href;
const PROGRAMS = new URL("../../src/devices/program-set.js", import.meta.url).href;

/** A ring format whose rxc returns a register that it has not set: a kernel refuses that. */
const BROKEN = `
import { sring } from ${JSON.stringify(HOST_HALF)};
import { programsOf } from ${JSON.stringify(PROGRAMS)};
const EXIT = Uint8Array.of(0x95, 0, 0, 0, 0, 0, 0, 0);
const RXC = 2;
const programs = (options) => {
  const { form, code } = programsOf(sring, options);
  return { form, code: new Map([...code, [RXC, EXIT]]) };
};
export default { ...sring, name: "broken", programs };
`;

const DRIVER = "/sys/bus/pci/drivers/bpfhv";
/** What ends a replacement in the middle, as a script of the guest. */
const INTERRUPTIONS: Readonly<Record<string, string>> = {
  "the interface goes down": "ip link set eth0 down; ip link set eth0 up",
  ...(isFull ? { "features are switched": "ethtool -K eth0 rx off; ethtool -K eth0 rx on" } : {}),
  "the device is reset": "echo 1 >$device/reset",
  "the driver is unbound": `name=$(basename $(readlink -f $device))
echo $name >${DRIVER}/unbind; echo $name >${DRIVER}/bind
ip addr add 10.88.0.2/24 dev eth0; ip link set eth0 up`,
};
/** Milliseconds after the host has staged the set. */
const DELAYS = isFull ? [0, 20, 60, 120, 200, 300, 450, 700] : [100];

describe("set that is replaced", { skip, timeout: patience(isFull ? 1_800_000 : 200_000) }, () => {
  const folder = mkdtempSync(join(tmpdir(), "bpfhv-upgrade-"));
  let program: string;
  let vm: NicGuest;
  let successors: Successors;

  before(async () => {
    program = buildNumbered(folder);
    vm = await NicGuest.start({
      label: "upgrade",
      multiQueue: true,
      serve: ["--queues=2", "--device=sring_gso", "--allow-unverified", "--accept-loss"],
      guest: { smp: 2, extraFiles: { [NUMBERED]: program } },
    });
    successors = new Successors(vm);
    await vm.guest.check(NO_DROPS);
    await vm.load();
    assert.equal(await vm.pings(3), 0);
  });

  after(async () => {
    rmSync(folder, { recursive: true, force: true });
    assert.deepEqual(await vm?.close(), { aborted: false, serveCode: 0 });
    await successors?.close();
  });

  const startLoad = (port: number) =>
    NumberedLoad.start(vm, { program, rate: RATE, bursts: BURSTS, port, isLimited: true });

  const replace = async (fields: Partial<NicSpec>) => {
    const answer = await request(vm.nic.socket, { method: "PATCH", body: fields }, LIMIT);
    assert.ok(answer.status);
    const { upgrade, device } = await vm.nic.status();
    assert.ok(upgrade);
    assert.deepEqual([upgrade.state, device], ["done", fields.device]);
    return upgrade;
  };

  const command = (...words: string[]) =>
    new Promise<{ status: number; err: string }>((resolve) => {
      execFile(process.execPath, [MAIN, "upgrade", vm.nic.socket, ...words], (error, _, err) => {
        resolve({ status: error === null ? 0 : Number(error.code), err });
      });
    });

  test("loses no packet when it is replaced under load", async (t) => {
    const carrier = "cat /sys/class/net/eth0/carrier_changes";
    const changes = await vm.guest.check(carrier);
    const load = await startLoad(5401);
    let cutsWithPackets = 0;
    for (let n = 0; n < UPGRADES; n++) {
      const [from, device] = ROUND.slice(n % (ROUND.length - 1));
      const [rxBufs, txBufs] = [SIZES[n % SIZES.length], SIZES[(n + 1) % SIZES.length]];
      const { ms, cutMs, inFlight, fromOld } = await replace({ device, rxBufs, txBufs });
      if (inFlight > 0) cutsWithPackets++;
      const gaps = await load.gaps();
      t.diagnostic(
        `${from} -> ${device}, ${rxBufs} and ${txBufs} buffers: ` +
          `gaps ${gaps.map((gap) => gap.toFixed(0))} ms out, in, out, in; ${ms.toFixed(0)} ms, ` +
          `cut ${cutMs.toFixed(0)} ms, ${inFlight} in flight, ${fromOld} from old rings`,
      );
    }
    const ends = await load.end();
    t.diagnostic(ends.map(({ sent }) => sent).join(", "));
    assert.deepEqual(faultsOf(ends), WHOLE);
    for (const { sent } of ends) assert.ok(sent > RATE, `${sent} datagrams sent`);
    assert.ok(cutsWithPackets >= UPGRADES / 2, `${cutsWithPackets} of ${UPGRADES} had packets`);
    assert.equal(await vm.guest.check(carrier), changes);
    const stats = await vm.guest.check("ethtool -S eth0");
    assert.match(stats, new RegExp(`upgrades: ${UPGRADES}\n`));
    assert.match(stats, /resets: 0\n/);
    assert.doesNotMatch(stats, /(dropped|errors): [1-9]/);
    assert.equal((await vm.nic.status()).lastRefusal, "");
  });

  test("keeps every byte of TCP when it is replaced", async () => {
    let over = false;
    const size = isFull ? 32 : 4;
    const transfer = transferChecked(vm, { upMiB: size, downMiB: size }).finally(
      () => (over = true),
    );
    for (let n = 1; !over; n++) await replace({ device: ROUND[n % 4], rxBufs: 256, txBufs: 256 });
    await transfer;
  });

  test("loses no packet of TCP when large ones wait on both sides for a set without offloads", {
    skip: isFull ? false : "large packets that wait take script/test --full",
  }, async (t) => {
    const setRate = (rate: string) =>
      request(vm.nic.socket, { method: "PATCH", body: { rate } }, LIMIT);
    const { host, peer } = vm.link;
    await setRate(TCP_RATE);
    const others = `iperf3 -c ${host} -B ${peer} -P 8 --bidir -t 600`;
    await vm.guest.check(`${others} >/dev/null 2>&1 & echo $! >/tmp/others.pid`);
    let over = false;
    const transfer = transferChecked(vm, { upMiB: 2, downMiB: 2 }).finally(() => (over = true));
    const cuts: number[] = [];
    for (let n = 1; !over || cuts.length < LARGE_CUTS; n++) {
      const device = n % 2 ? "sring" : "sring_gso";
      const { inFlight } = await replace({ device, rxBufs: FEW, txBufs: 256 });
      if (device === "sring") cuts.push(inFlight);
    }
    await transfer;
    await vm.guest.check("kill $(cat /tmp/others.pid)");
    await setRate("none");
    const { queues } = await vm.nic.status();
    const onHost = queues.reduce((sum, { counters }) => sum + counters.software, 0);
    const stats = await vm.guest.check("ethtool -S eth0");
    const inGuest = [...stats.matchAll(/softened: (\d+)/g)].map(([, count]) => Number(count));
    t.diagnostic(
      `descriptors in flight to sets without offloads: ${cuts}; finished in software: ` +
        `${onHost} packets on the host, ${inGuest} in the guest by queue`,
    );
    assert.ok(cuts.filter((count) => count > 0).length >= cuts.length / 2);
    assert.ok(onHost > 0);
    for (const { queue, counters } of queues) {
      for (const name of DROP_COUNTERS) assert.equal(counters[name], 0, `${queue} ${name}`);
    }
    assert.doesNotMatch(stats, /(dropped|errors): [1-9]/);
    const [{ stats64 }] = JSON.parse(vm.netns.exec(["ip", "-j", "-s", "link", "show", "tap0"]));
    assert.deepEqual([stats64.rx.dropped, stats64.tx.dropped], [0, 0]);
  });

  test("goes on when the guest's kernel refuses the next one, and the command says why", async () => {
    const file = join(folder, "broken.ts");
    writeFileSync(file, BROKEN);
    const { device } = await vm.nic.status();
    const { status, err } = await command("--device", file);
    assert.equal(status, 1, err);
    assert.match(err, /was not taken: the guest refused a program \(program rxc\)/);
    assert.equal((await vm.nic.status()).device, device);
    assert.match(await vm.guest.check("dmesg | tail -n 3"), /program rxc refused by the kernel/);
    assert.equal(await vm.pings(3), 0);
    await replace({ device: "sring_gso", rxBufs: 128 });
  });

  for (const [what, script] of Object.entries(INTERRUPTIONS)) {
    test(`is the old or the new one, and works, when ${what} in the middle`, async (t) => {
      const find = "device=$(dirname $(grep -l 0x0b9f /sys/bus/pci/devices/*/device))";
      const bufs = async () => (await vm.nic.status()).queues[0].bufs;
      for (const delay of DELAYS) {
        const before = await bufs();
        const wanted = before === 256 ? 64 : 256;
        const body = { device: "sring_gso", rxBufs: wanted };
        const outcome = request(vm.nic.socket, { method: "PATCH", body }, LIMIT);
        const ended = outcome.then(() => true).catch(() => false);
        await sleep(delay);
        await vm.guest.check(`${find}; ${script}`, { timeoutMs: patience(20_000) });
        const taken = await ended;
        const { upgrade } = await vm.nic.status();
        t.diagnostic(`after ${delay} ms: ${upgrade?.state} (${upgrade?.reason})`);
        assert.equal(await bufs(), taken ? wanted : before);
        assert.equal(await vm.pings(3), 0);
      }
      assert.doesNotMatch(await vm.guest.check("dmesg"), ALARM);
      await replace({ device: "vring_packed", rxBufs: 64 });
      await replace({ device: "sring_gso", rxBufs: 256 });
      assert.equal(await vm.pings(3), 0);
    });
  }

  test("loses no packet when other servers take the NIC over under load", async (t) => {
    const load = await startLoad(5411);
    await load.gaps();
    for (let n = 0; n < TAKE_OVERS; n++) {
      const pause = await successors.takeOver();
      const gaps = (await load.gaps()).map((gap) => gap.toFixed(0));
      t.diagnostic(`no server for ${pause} ms; gaps ${gaps} ms out, in, out, in`);
    }
    assert.deepEqual(faultsOf(await load.end()), WHOLE);
    await replace({ device: "vring_packed", rxBufs: 64 });
  });

  test("loses packets of the same load when the interface restarts for it, as in version 1 of the ABI", async (t) => {
    await vm.guest.check("rmmod bpfhv");
    await vm.load("overlap=0");
    assert.equal(await vm.pings(1), 0);
    const load = await startLoad(5421);
    for (let n = 0; n < RESTARTS; n++) {
      await load.gaps();
      await replace({ device: "sring", rxBufs: SIZES[n] });
    }
    const { lost } = faultsOf(await load.end());
    t.diagnostic(`${lost} lost in ${RESTARTS} restarts`);
    assert.ok(lost > 0);
  });
});

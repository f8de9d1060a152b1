/**
 * A guest that forwards between two NICs with offloads, as a router and as a bridge: large packets
 * pass as they came. Each counts what comes in and what goes out, so that a cut or lost one shows.
 *
 *     near            guest             far
 *     tap0 ---- eth0 ------- eth1 ---- tap1
 *                     \----- eth2 ---- tap2    a ring of 16 buffers
 */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { DROP_COUNTERS } from "../../src/memory/counters.ts";
import {
  buildModule,
  type Guest,
  type GuestParts,
  Netns,
  patience,
  prepareGuest,
  startGuest,
  until,
} from "../support/vm/harness.ts";
import { writeLarge } from "../support/vm/large-segments.ts";
import { ServedNic } from "../support/vm/nic.ts";
import { withoutVm } from "../support/vm/requirements.ts";

const skip = await withoutVm();
const NEAR = "10.81.1.1";
const FAR = "10.81.2.1";
/** The far side's address on the near side's network, for the bridge. */
const FAR_BRIDGED = "10.81.1.3";
const SMALL = "10.81.3.1";
/** The network of packets that the test writes itself, and their target, which drops them. */
const ELSEWHERE = "10.81.9.1";
const NOBODY = "10.81.2.99";
/** More segments than a host takes in one packet (2048), and many more than a ring has. */
const FINE = { from: "10.81.9.2", to: NOBODY, payload: 60_000, segment: 24 };
const FINE_SEGMENTS = FINE.payload / FINE.segment;
/** What TCP sends each time: a few hundred large packets. */
const MEGABYTES = 20;
/** A mean that only large packets reach, including acknowledgements. */
const LARGE = 4000;
/** Neighbour discovery, in packets. */
const NOISE = 8;
/** Modules of the guest kernel, in their order. */
const MODULES = ["llc/llc", "802/stp", "802/garp", "802/mrp", "bridge/bridge", "8021q/8021q"];

/** Features that may differ from virtio-net's, and our state. */
const DIFFERENCES: Readonly<Record<string, string>> = {
  // The programs are made again without it, so it can be switched.
  "rx-checksumming": "on",
  // Received packets of more pages than fragments are forwarded uncut.
  "tx-scatter-gather-fraglist": "on",
  // virtio-net has filters for QEMU to apply.
  "rx-vlan-filter": "off [fixed]",
  // virtio-net has it off at first, and not at all with older kernels.
  "tx-udp-segmentation": "on",
};
/** Those that VLAN devices have from us. */
const VLAN_DIFFERENCES = ["tx-scatter-gather-fraglist", "tx-udp-segmentation"];
/** Largest payload of a ping in an MTU of 1500. */
const FULL_PING = 1472;

interface Counts {
  readonly packets: number;
  readonly bytes: number;
}

describe("guest that forwards between two NICs", { skip, timeout: patience(240_000) }, () => {
  let parts: GuestParts;
  let near: Netns;
  let far: Netns;
  let nics: ServedNic[];
  let guest: Guest;
  let hasModules: boolean;

  before(async () => {
    parts = await prepareGuest();
    [near, far] = ["near", "far"].map((label) => Netns.make(label));
    near.addTap({ name: "tap0", address: `${NEAR}/24` });
    far.addTap({ name: "tap1", address: `${FAR}/24` });
    far.addTap({ name: "tap2", address: `${SMALL}/24` });
    far.addTap({ name: "tap3", address: "10.81.4.1/24" });
    near.addTap({ name: "tap9", address: `${ELSEWHERE}/24` });
    near.exec(["sysctl", "-q", "-w", "net.ipv4.ip_forward=1"]);
    near.exec(["ip", "route", "add", "default", "via", "10.81.1.2"]);
    far.exec(["ip", "route", "add", "default", "via", "10.81.2.2"]);
    // Answers of tap2's address leave by tap2.
    far.exec(["ip", "route", "add", "default", "via", "10.81.3.2", "table", "3"]);
    far.exec(["ip", "rule", "add", "from", SMALL, "table", "3"]);
    far.exec(["ip", "addr", "add", `${FAR_BRIDGED}/32`, "dev", "tap1"]);
    nics = await Promise.all(
      [
        ["--net", `tap:tap0,netns=${near.name}`],
        ["--net", `tap:tap1,netns=${far.name}`],
        ["--net", `tap:tap2,netns=${far.name}`, "--tx-bufs", "16"],
        ["--net", "loopback"],
      ].map((words) => ServedNic.start("--device", "sring_gso", ...words)),
    );
    guest = await startGuest({
      sockets: nics.map(({ socket }) => socket),
      virtioNics: [{ tap: "tap3", netns: far.name, mac: "52:54:00:00:81:04" }],
      modules: [(await buildModule()).find((path) => path.endsWith("/bpfhv.ko")) as string],
      extraFiles: kernelModules(parts),
    });
    hasModules = kernelModulePaths(parts).length > 0;
    await guest.check(ROUTER);
    const server = far.spawn([parts.iperf3, "-s"]);
    server.stdout?.resume();
    server.stderr?.resume();
  });

  after(async () => {
    await guest?.close();
    for (const nic of nics ?? []) await nic.stop();
    for (const netns of [near, far]) netns?.close();
  });

  async function counters(nic: number, queue: "rx0" | "tx0"): Promise<Counts> {
    return (await nics[nic].status()).queues.find((each) => each.queue === queue)!.counters;
  }

  /** Returns a statistic of the guest's module. */
  async function statistic(device: string, name: string): Promise<number> {
    const stats = await guest.check(`ethtool -S ${device}`);
    return Number(new RegExp(`${name}: (\\d+)\n`).exec(stats)?.[1]);
  }

  /** Bytes that a queue was given and that never complete make the stack hold others back. */
  async function assertNothingInFlight(): Promise<void> {
    const inflight = "cat /sys/class/net/eth[0123]/queues/tx-0/byte_queue_limits/inflight";
    await until(3000, "an end of bytes in flight", async () => {
      return (await guest.check(inflight)) === "0\n0\n0\n0\n";
    });
  }

  async function features(device: string): Promise<Map<string, string>> {
    const lines = (await guest.check(`ethtool -k ${device}`)).matchAll(/^\s*([\w-]+): (.*)$/gm);
    return new Map([...lines].map(([, name, state]) => [name, state]));
  }

  /** Sends TCP from the near side, and compares what comes into eth0 with what leaves eth`nic`. */
  async function assertPassedWhole(target: string, nic: number): Promise<void> {
    const [rx, tx] = [await counters(0, "rx0"), await counters(nic, "tx0")];
    const words = ["-c", target, "-n", `${MEGABYTES}M`];
    near.exec([parts.iperf3, ...words], patience(60_000));
    const [rxNow, txNow] = [await counters(0, "rx0"), await counters(nic, "tx0")];
    const packets = rxNow.packets - rx.packets;
    const bytes = rxNow.bytes - rx.bytes;
    assert.ok(bytes > MEGABYTES << 20, `${bytes} bytes in`);
    assert.ok(bytes / packets > LARGE, `${bytes / packets} bytes a packet`);
    const seen = `${packets} packets in, ${txNow.packets - tx.packets} out`;
    assert.ok(Math.abs(txNow.packets - tx.packets - packets) <= NOISE, seen);
    assert.ok(Math.abs(txNow.bytes - tx.bytes - bytes) <= NOISE * 60, seen);
    await assertNothingLost();
  }

  async function assertNothingLost(): Promise<void> {
    for (const { queues } of await Promise.all(nics.map((nic) => nic.status()))) {
      for (const { queue, counters } of queues) {
        for (const name of DROP_COUNTERS) assert.equal(counters[name], 0, `${queue} ${name}`);
      }
    }
    for (const device of ["eth0", "eth1", "eth2", "eth3"]) {
      for (const name of ["tx0_dropped", "tx0_errors", "rx0_dropped", "rx0_errors"]) {
        assert.equal(await statistic(device, name), 0, `${device} ${name}`);
      }
    }
    await assertNothingInFlight();
  }

  async function differences(mine: string, virtios: string, allowed: string[]): Promise<string[]> {
    const [ours, virtio] = [await features(mine), await features(virtios)];
    for (const name of allowed) assert.equal(ours.get(name), DIFFERENCES[name], `${mine} ${name}`);
    assert.ok(virtio.size > 40, `${virtio.size} features`);
    return [...new Set([...ours.keys(), ...virtio.keys()])]
      .filter((name) => !allowed.includes(name) && ours.get(name) !== virtio.get(name))
      .map((name) => `${name}: ${ours.get(name)}, virtio-net ${virtio.get(name)}`);
  }

  test("features are those of virtio-net but for a few", async () => {
    assert.deepEqual(await differences("eth1", "virtio0", Object.keys(DIFFERENCES)), []);
  });

  test("features of VLAN devices are those of virtio-net's but for a few", async (t) => {
    if (!hasModules) return t.skip("this guest kernel has no VLAN module");
    await guest.check(VLANS);
    assert.deepEqual(await differences("eth1.5", "virtio0.5", VLAN_DIFFERENCES), []);
  });

  test("full-size packets with two VLAN tags come back when large receive is off", async (t) => {
    if (!hasModules) return t.skip("this guest kernel has no VLAN module");
    await guest.check(`ethtool -K eth3 rx-gro-hw off
      ip neigh add 10.81.6.1 lladdr $(cat /sys/class/net/eth3/address) dev qinq`);
    const received = () => guest.check("cat /sys/class/net/qinq/statistics/rx_bytes");
    const before = Number(await received());
    await guest.run(`ping -q -c 5 -i 0.05 -W 1 -s ${FULL_PING} 10.81.6.1`);
    const wanted = 5 * (FULL_PING + 28);
    await until(3000, "five packets", async () => Number(await received()) - before >= wanted);
    await assertNothingLost();
  });

  test("large packets pass a router uncut, even those of more fragments than one skb has", async () => {
    await assertPassedWhole(FAR, 1);
    for (const name of ["tx0_softened", "tx0_linearized"]) {
      assert.equal(await statistic("eth1", name), 0, name);
    }
  });

  test("large packets are copied into one buffer when the ring takes fewer", async () => {
    await assertPassedWhole(SMALL, 2);
    assert.ok((await statistic("eth2", "tx0_linearized")) > 0);
    assert.equal(await statistic("eth2", "tx0_softened"), 0);
  });

  test("packets of more segments than a host takes are cut, and no segment is lost", async () => {
    await guest.check(`ip neigh add ${NOBODY} lladdr 02:00:00:00:00:98 dev eth1`);
    const before = (await counters(1, "tx0")).packets;
    const count = 3;
    writeLarge(near, "tap9", FINE, count);
    const sent = async () => (await counters(1, "tx0")).packets - before;
    const wanted = count * FINE_SEGMENTS;
    await until(patience(10_000), `${wanted} segments`, async () => (await sent()) >= wanted);
    await assertNothingLost();
    assert.ok((await sent()) <= wanted + NOISE, `${await sent()} segments`);
    assert.equal(await statistic("eth1", "tx0_softened"), count);
    assert.ok((await statistic("eth1", "tx0_held")) > 0);
  });

  test("large packets pass a bridge uncut", async (t) => {
    if (!hasModules) return t.skip("this guest kernel has no bridge");
    far.exec(["ip", "addr", "replace", `${FAR_BRIDGED}/24`, "dev", "tap1"]);
    await guest.check(BRIDGED);
    await assertPassedWhole(FAR_BRIDGED, 1);
  });
});

/** Merging is off in the guest, and its queues are long: both would change what is counted. */
const ROUTER = `
  set -e
  # Its driver was loaded first.
  ip link set eth0 name virtio0
  ethtool -K virtio0 gro off
  for i in 0 1 2 3; do ip link set eth$((i + 1)) name eth$i; done
  sysctl -w net.ipv4.ip_forward=1 >/dev/null
  for i in 0 1 2 3; do
    ip link set eth$i up
    ip addr add 10.81.$((i + 1)).2/24 dev eth$i
    ethtool -K eth$i gro off
    tc qdisc replace dev eth$i root pfifo limit 10000
  done`;

const VLANS = `
  set -e
  for module in ${MODULES.map((path) => path.split("/")[1]).join(" ")}; do
    insmod /modules/$module.ko
  done
  ip link add link eth1 name eth1.5 type vlan id 5
  ip link add link virtio0 name virtio0.5 type vlan id 5
  ip link add link eth3 name outer type vlan proto 802.1ad id 5
  ip link add link outer name qinq type vlan id 6
  ip link set outer up
  ip link set qinq up
  ip addr add 10.81.6.2/24 dev qinq`;

const BRIDGED = `
  set -e
  ip link add br0 type bridge
  for i in 0 1; do
    ip addr flush dev eth$i
    ip link set eth$i master br0
  done
  ip link set br0 up`;

function kernelModulePaths({ folder, release }: GuestParts): string[] {
  const net = join(folder, "root/usr/lib/modules", release, "kernel/net");
  const paths = MODULES.map((path) => join(net, `${path}.ko.xz`));
  return paths.every((path) => existsSync(path)) ? paths : [];
}

function kernelModules(parts: GuestParts): Record<string, Uint8Array> {
  return Object.fromEntries(
    kernelModulePaths(parts).map((path, i) => [
      `/modules/${MODULES[i].split("/")[1]}.ko`,
      execFileSync("xz", ["-dc", path], { maxBuffer: 64 << 20 }),
    ]),
  );
}

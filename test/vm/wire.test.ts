/**
 * Offloads are correct on the wire, checked by tshark. Frames are captured twice: on
 * the TAP, where they are large and without checksums, and where a kernel has
 * completed them by the guest's metadata alone.
 *
 *      outer namespace     inner namespace         guest              other namespace
 *      peer1 ---- veth ----- hop1 | tap0 ---- eth0 sring_gso | eth1 sring ---- tap1
 *
 * From the guest: the host's kernel segments them at hop1, whose offloads are off. peer1 has the
 * final frames. To the guest: the guest's kernel forwards and segments them at eth1, which has no
 * offloads. tap1 has the final frames.
 */
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { DROP_COUNTERS } from "../../src/memory/counters.ts";
import { Capture, type Frame, payloadOf, withoutTshark } from "../support/vm/capture.ts";
import {
  buildModule,
  type Guest,
  type GuestParts,
  Netns,
  patience,
  prepareGuest,
  startGuest,
} from "../support/vm/harness.ts";
import { ServedNic } from "../support/vm/nic.ts";
import { withoutVm } from "../support/vm/requirements.ts";

const skip = (await withoutVm()) || withoutTshark();

/** The largest frame of an MTU of 1500. */
const WIRE = 1514;
/** Payload of a TCP segment with time stamps, by version of IP. */
const MSS = { 4: 1448, 6: 1428 } as const;
const DATAGRAM = 1200;
const TCP_BYTES = 4_000_000;
const OUTER = { 4: "10.79.1.2", 6: "fd79:1::2" } as const;
const OTHER = { 4: "10.79.3.1", 6: "fd79:3::1" } as const;
const PORT = 5201;

interface Look {
  /** On the TAP, between the NIC and the host's kernel. */
  readonly raw: readonly Frame[];
  readonly final: readonly Frame[];
}

describe("frames on the wire", { skip, timeout: patience(240_000) }, () => {
  let parts: GuestParts;
  let outer: Netns;
  let inner: Netns;
  let other: Netns;
  let offloading: ServedNic;
  let plain: ServedNic;
  let guest: Guest;

  before(async () => {
    parts = await prepareGuest();
    [outer, inner, other] = ["outer", "inner", "other"].map((label) => Netns.make(label));
    connect(inner, outer);
    inner.addTap({ name: "tap0", address: "10.79.2.1/24" });
    other.addTap({ name: "tap1", address: `${OTHER[4]}/24` });
    offloading = await ServedNic.start(
      ...["--device", "sring_gso", "--net", `tap:tap0,netns=${inner.name}`],
    );
    plain = await ServedNic.start("--net", `tap:tap1,netns=${other.name}`);
    guest = await startGuest({
      sockets: [offloading.socket, plain.socket],
      modules: [(await buildModule()).find((path) => path.endsWith("/bpfhv.ko")) as string],
    });
    await guest.check(GUEST_SETUP);
    configure(inner, "tap0", "10.79.2.1/24", "fd79:2::1/64");
    configure(other, "tap1", `${OTHER[4]}/24`, `${OTHER[6]}/64`);
    for (const version of ["-4", "-6"]) {
      const gateway =
        version === "-4"
          ? ["10.79.1.1", "10.79.3.2", "10.79.2.2"]
          : ["fd79:1::1", "fd79:3::2", "fd79:2::2"];
      outer.exec(["ip", version, "route", "add", "default", "via", gateway[0]]);
      other.exec(["ip", version, "route", "add", "default", "via", gateway[1]]);
      inner.exec(["ip", version, "route", "add", "default", "via", gateway[2]]);
    }
    for (const netns of [outer, other]) {
      const server = netns.spawn([parts.iperf3, "-s", "-p", `${PORT}`]);
      server.stdout?.resume();
      server.stderr?.resume();
    }
  });

  after(async () => {
    await guest?.close();
    for (const nic of [offloading, plain]) await nic?.stop();
    for (const netns of [outer, inner, other]) netns?.close();
  });

  async function look(
    final: readonly [Netns, string],
    filter: string,
    traffic: () => unknown,
  ): Promise<Look> {
    const captures = [
      await Capture.start(inner, "tap0", filter),
      await Capture.start(final[0], final[1], filter),
    ];
    await traffic();
    const [raw, seen] = [await captures[0].stop(), await captures[1].stop()];
    return { raw, final: seen };
  }

  /** Returns the data connection's frames from the sending side. */
  function sender(frames: readonly Frame[]): Frame[] {
    const carried = new Map<string, number>();
    const key = ({ stream, sourcePort }: Frame) => `${stream} ${sourcePort}`;
    for (const frame of frames)
      carried.set(key(frame), (carried.get(key(frame)) ?? 0) + frame.payload);
    const [[busiest]] = [...carried].sort(([, a], [, b]) => b - a);
    return frames.filter((frame) => key(frame) === busiest);
  }

  function assertFinal(frames: readonly Frame[]): void {
    const bad = frames.filter(({ checksumsGood }) => !checksumsGood);
    assert.equal(bad.length, 0, `wrong checksums, the first of ${JSON.stringify(bad[0])}`);
    const longest = Math.max(...frames.map(({ length }) => length));
    assert.ok(longest <= WIRE, `a frame of ${longest} bytes`);
  }

  function assertTcp({ raw, final }: Look, mss: number): void {
    // Offloads were used, and tshark would detect a wrong checksum.
    const large = raw.filter(({ length }) => length > WIRE);
    assert.ok(large.length > 20, `${large.length} large frames on the TAP`);
    assert.equal(large.filter(({ checksumsGood }) => checksumsGood).length, 0);
    assertFinal(sender(final));
    for (const frames of [raw, final]) {
      const { bytes, holes } = payloadOf(sender(frames));
      assert.equal(holes, 0);
      assert.ok(bytes >= TCP_BYTES, `${bytes} bytes of ${TCP_BYTES}`);
    }
    const { sizes } = payloadOf(sender(final));
    assert.equal(Math.max(...sizes), mss);
    const full = sizes.filter((size) => size === mss).length;
    assert.ok(full > 0.9 * sizes.length, `${full} full segments of ${sizes.length}`);
  }

  for (const version of [4, 6] as const) {
    const flags = `-${version} -n ${TCP_BYTES} -p ${PORT}`;

    test(`TCP over IPv${version} from the guest is segmented correctly by the host's kernel`, async () => {
      assertTcp(
        await look([outer, "peer1"], "tcp", () =>
          guest.check(`iperf3 ${flags} -c ${OUTER[version]} >/dev/null`),
        ),
        MSS[version],
      );
    });

    test(`TCP over IPv${version} to the guest is segmented correctly by the guest's kernel`, async () => {
      assertTcp(
        await look([other, "tap1"], "tcp", () =>
          outer.exec([parts.iperf3, ...flags.split(" "), "-c", OTHER[version]], patience(30_000)),
        ),
        MSS[version],
      );
    });
  }

  for (const [way, from, to, target] of [
    ["from", () => other, () => [outer, "peer1"] as const, OUTER[4]],
    ["to", () => outer, () => [other, "tap1"] as const, OTHER[4]],
  ] as const) {
    test(`UDP ${way} the guest is segmented correctly into datagrams`, async () => {
      const words = ["-u", "-c", target, "-p", `${PORT}`, "-b", "60M", "-t", "1"];
      const { raw, final } = await look(to(), "udp", () =>
        from().exec([parts.iperf3, ...words, "-l", `${DATAGRAM}`], patience(30_000)),
      );
      const large = raw.filter(({ length }) => length > WIRE);
      assert.ok(large.length > 20, `${large.length} large frames of ${raw.length} on the TAP`);
      // iperf3 starts and ends with a few bytes of its own.
      const data = sender(final).filter(({ payload }) => payload > 100);
      assertFinal(data);
      assert.deepEqual([...new Set(data.map(({ payload }) => payload))], [DATAGRAM]);
      const carried = sender(raw).filter(({ payload }) => payload > 100);
      const bytes = carried.reduce((sum, { payload }) => sum + payload, 0);
      assert.equal(data.length * DATAGRAM, bytes, "each datagram of the TAP is on the wire, once");
    });
  }

  test("no packet is dropped", async () => {
    for (const nic of [offloading, plain]) {
      for (const { queue, counters } of (await nic.status()).queues) {
        for (const name of DROP_COUNTERS) assert.equal(counters[name], 0, `${queue} ${name}`);
      }
    }
  });
});

const GUEST_SETUP = `
  set -e
  sysctl -w net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 >/dev/null
  sysctl -w net.ipv6.conf.eth0.disable_ipv6=0 net.ipv6.conf.eth1.disable_ipv6=0 >/dev/null
  ip link set eth0 up
  ip link set eth1 up
  ip addr add 10.79.2.2/24 dev eth0
  ip addr add 10.79.3.2/24 dev eth1
  ip -6 addr add fd79:2::2/64 dev eth0 nodad
  ip -6 addr add fd79:3::2/64 dev eth1 nodad
  ip -4 route add default via 10.79.2.1
  until ip -6 route add default via fd79:2::1 2>/dev/null; do sleep 0.1; done
  ethtool -K eth1 rx-udp-gro-forwarding on`;

/** Sets an address of each version; namespaces of tests have IPv6 off. */
function configure(netns: Netns, device: string, v4: string, v6: string): void {
  netns.exec(["sysctl", "-q", "-w", `net.ipv6.conf.${device}.disable_ipv6=0`]);
  netns.exec(["ip", "addr", "replace", v4, "dev", device]);
  netns.exec(["ip", "-6", "addr", "add", v6, "dev", device, "nodad"]);
}

/** Connects the inner namespace, which forwards and segments, to the outer one by a cable. */
function connect(inner: Netns, outer: Netns): void {
  const peer = ["peer", "name", "peer1", "netns", outer.name];
  inner.exec(["ip", "link", "add", "hop1", "type", "veth", ...peer]);
  for (const [netns, device, v4, v6] of [
    [inner, "hop1", "10.79.1.1/24", "fd79:1::1/64"],
    [outer, "peer1", `${OUTER[4]}/24`, `${OUTER[6]}/64`],
  ] as const) {
    netns.exec(["ip", "link", "set", device, "up"]);
    configure(netns, device, v4, v6);
  }
  inner.exec(["sysctl", "-q", "-w", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"]);
  // Segments and completes on the way out; merges on the way in, UDP
  // too, so that the TAP gets large frames.
  const off = ["tx", "off", "sg", "off", "tso", "off", "gso", "off"];
  inner.exec(["ethtool", "-K", "hop1", ...off, "gro", "on", "rx-udp-gro-forwarding", "on"]);
  // A veth passes packets one by one: packets of 2 ms are to be merged.
  inner.exec(["sh", "-c", "echo 2000000 >/sys/class/net/hop1/gro_flush_timeout"]);
}

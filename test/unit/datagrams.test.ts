/** Figures of the demo and VM tests come from the receiver's counters, not from iperf3's client. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { legend, type Row, ratios, type Sample, table } from "../../bench/demo-results.ts";
import { added, parseCounters, SHOW_COUNTERS } from "../support/vm/datagrams.ts";
import type { Guest, GuestParts, Netns } from "../support/vm/harness.ts";
import { Link } from "../support/vm/traffic.ts";

interface Counts {
  readonly datagramsIn?: number;
  readonly errors?: number;
  readonly datagramsOut?: number;
  readonly packetsIn?: number;
  readonly packetsOut?: number;
}

/** In the format of Linux 6.12. */
function shown(device: string, counts: Counts): string {
  const { datagramsIn = 0, errors = 0, datagramsOut = 0, packetsIn = 0, packetsOut = 0 } = counts;
  const received = `123456 ${packetsIn}    0    5    0     0          0         0`;
  return `Tcp: RtoAlgorithm RtoMin\nTcp: 1 200
Udp: InDatagrams NoPorts InErrors OutDatagrams RcvbufErrors SndbufErrors InCsumErrors
Udp: ${datagramsIn} 3 ${errors} ${datagramsOut} ${errors} 0 0
UdpLite: InDatagrams NoPorts InErrors OutDatagrams RcvbufErrors SndbufErrors
UdpLite: 7 7 7 7 7 7
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo
    lo:       9       9    0    0    0     0          0         0        9       9    0    0    0
  ${device}: ${received}   98765 ${packetsOut}    0   11    0
`;
}

test("parseCounters reads sockets and interface when others stand beside them", () => {
  const counters = parseCounters(
    shown("eth0", { datagramsIn: 428, errors: 112_490, packetsIn: 112_918 }),
    "eth0",
  );
  assert.deepEqual(counters, {
    ...{ datagramsIn: 428, datagramErrors: 112_490, datagramsOut: 0 },
    ...{ packetsIn: 112_918, droppedIn: 5, packetsOut: 0, droppedOut: 11 },
  });
  assert.equal(added(counters, { ...counters, datagramsIn: 430 }).datagramsIn, 2);
});

test("parseCounters throws when the interface is not there", () => {
  assert.throws(() => parseCounters(shown("eth0", {}), "eth1"), /no counters of UDP and eth1/);
});

/** Returns an end whose counters are those of `steps`, one after the other; the last one stays. */
function end(device: string, address: string, steps: Counts[]): (command: string) => string {
  return (command) => {
    if (command.startsWith("ip ")) return `2: ${device}    inet ${address}/24 scope global`;
    assert.equal(command, SHOW_COUNTERS);
    return shown(device, (steps.length > 1 ? steps.shift() : steps[0])!);
  };
}

test("Link.udp counts what the receiver's socket took when iperf3 reports no loss", async () => {
  // Seen with a guest whose program got no CPU time: all packets "sent", none of them "lost".
  const claim = { end: { sum: { packets: 225_836, lost_packets: 0, seconds: 2 } } };
  const flow = { datagramsIn: 428, errors: 90_000, packetsIn: 90_428 };
  const guestEnd = end("eth0", "10.0.0.2", [{}, flow]);
  const hostEnd = end("tap0", "10.0.0.1", [{}, { datagramsOut: 225_836, packetsOut: 90_428 }]);
  const guest = {
    run: async () => ({ status: 0, output: JSON.stringify(claim) }),
    check: async (command: string) => guestEnd(command),
  } as unknown as Guest;
  const netns = {
    spawn: () => ({}),
    exec: (words: string[]) => hostEnd(words.join(" ")),
  } as unknown as Netns;
  const parts = { iperf3: "iperf3", ping: "ping" } as unknown as GuestParts;
  const link = new Link({ guest, netns, parts, host: "10.0.0.1", peer: "10.0.0.2" });
  const result = await link.udp("to guest", 2);
  assert.equal(result.pps, 214);
  assert.equal(result.nicPps, 45_214);
  assert.equal(result.offeredPps, 112_918);
});

function sample(scale: number): Sample {
  return {
    ...{ tcpFromGuestMbps: 123.456 * scale, tcpToGuestMbps: 100 * scale, lost: 0 },
    ...{ udpFromGuestPps: 12_345 * scale, udpToGuestPps: 214 * scale },
    ...{ udpToGuestNicPps: 45_214 * scale, rttMs: 1.234 * scale },
  };
}

function row(nic: string, scales: readonly number[]): Row {
  const samples = scales.map(sample);
  const middle = sample([...scales].sort((a, b) => a - b)[scales.length >> 1]!);
  return { nic, offloads: false, medians: middle, samples, lost: 0, drops: 0, interrupts: 10 };
}

test("the demo's table shows a ratio's spread when there is more than one round", () => {
  const rows = [row("bpfhv/sring", [12.91, 1, 2]), row("virtio-net", [1, 1, 1])];
  const text = table(rows);
  assert.match(text, /^bpfhv\/sring to virtio +off +2 +2 /m);
  assert.match(text, /^ {2}lowest round +off +1 /m);
  assert.match(text, /^ {2}highest round +off +13 /m);
  assert.match(text, /0\.428 kp\/s/);
  assert.doesNotMatch(text, /12\.91/);
  assert.equal(ratios(rows)[0]!.rounds.length, 3);
});

test("the demo says that a comparison is worth little when there was one round", () => {
  const text = table([row("bpfhv/sring", [12.91]), row("virtio-net", [1])]);
  assert.match(text, /^bpfhv\/sring to virtio +off +13 /m);
  assert.doesNotMatch(text, /round/);
  assert.match(legend(1, 1), /Fewer than three rounds/);
  assert.doesNotMatch(legend(3, 2), /Fewer/);
});

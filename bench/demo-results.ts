/**
 * What the demo measures, and how it is shown: medians with their
 * spread, no more digits than they are worth.
 */
import type { UdpResult } from "../test/support/vm/traffic.ts";

/** Of one NIC in one round. */
export interface Sample {
  tcpFromGuestMbps: number;
  tcpToGuestMbps: number;
  /** Datagrams a second that the receiver's socket took. */
  udpFromGuestPps: number;
  udpToGuestPps: number;
  /** Packets a second that the guest's NIC took in of the same flow. */
  udpToGuestNicPps: number;
  rttMs: number;
  /** Pings without an answer. */
  lost: number;
  /** As counted, and the mean of each burst of pings. */
  readonly udpFromGuest?: UdpResult;
  readonly udpToGuest?: UdpResult;
  readonly burstsRttMs?: readonly number[];
}

/** What is compared. */
export const MEASURES = [
  "tcpFromGuestMbps",
  "tcpToGuestMbps",
  "udpFromGuestPps",
  "udpToGuestPps",
  "udpToGuestNicPps",
  "rttMs",
] as const;
export type Measure = (typeof MEASURES)[number];

/** One NIC: medians of its rounds, and all of them. */
export interface Row {
  readonly nic: string;
  readonly offloads: boolean;
  readonly medians: Readonly<Record<Measure, number>>;
  readonly samples: readonly Sample[];
  readonly lost: number;
  readonly drops: number;
  readonly interrupts: number;
}

/** A NIC of ours to virtio-net, like with like. */
export interface Ratio {
  readonly nic: string;
  readonly offloads: boolean;
  /** Of the medians. */
  readonly median: Readonly<Record<Measure, number>>;
  /** By round. */
  readonly rounds: readonly Readonly<Record<Measure, number>>[];
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  if (sorted.length % 2 === 1) return sorted[middle]!;
  return (sorted[middle - 1]! + sorted[middle]!) / 2;
}

const ofEach = (value: (measure: Measure) => number): Record<Measure, number> =>
  Object.fromEntries(MEASURES.map((m) => [m, value(m)])) as Record<Measure, number>;

export const medians = (samples: readonly Sample[]): Record<Measure, number> =>
  ofEach((measure) => median(samples.map((sample) => sample[measure])));

export function ratios(rows: readonly Row[]): Ratio[] {
  return rows
    .filter(({ nic }) => nic.startsWith("bpfhv/"))
    .map((row) => {
      // Offloads beside offloads.
      const rival = rows.find((r) => r.nic === "virtio-net" && r.offloads === row.offloads);
      if (rival === undefined) throw new Error(`nothing to compare ${row.nic} with`);
      const rounds = row.samples.map((sample, n) =>
        ofEach((m) => sample[m] / rival.samples[n]![m]),
      );
      const median = ofEach((m) => row.medians[m] / rival.medians[m]);
      return { nic: row.nic, offloads: row.offloads, median, rounds };
    });
}

/** As many digits as a run on a busy machine is worth. */
const digits = (value: number, count: number): string =>
  Number.isFinite(value) ? `${Number(value.toPrecision(count))}` : "-";

const UNITS: Readonly<Record<Measure, (value: number) => string>> = {
  tcpFromGuestMbps: (value) => `${digits(value, 3)} Mb/s`,
  tcpToGuestMbps: (value) => `${digits(value, 3)} Mb/s`,
  udpFromGuestPps: (value) => `${digits(value / 1000, 3)} kp/s`,
  udpToGuestPps: (value) => `${digits(value / 1000, 3)} kp/s`,
  udpToGuestNicPps: (value) => `${digits(value / 1000, 3)} kp/s`,
  rttMs: (value) => `${digits(value, 2)} ms`,
};

const HEAD = [
  ...["NIC", "offloads", "TCP out", "TCP in", "UDP out", "UDP in", "at NIC", "RTT"],
  ...["lost", "drops", "irqs"],
];

const onOff = (offloads: boolean): string => (offloads ? "on" : "off");

export function table(rows: readonly Row[]): string {
  const body = rows.map(({ nic, offloads, medians, lost, drops, interrupts }) => [
    ...[nic, onOff(offloads), ...MEASURES.map((m) => UNITS[m](medians[m]))],
    ...[`${lost}`, `${drops}`, `${interrupts}`],
  ]);
  const lines = [HEAD, ...body, ...ratios(rows).flatMap(ratioLines)];
  const widths = HEAD.map((_, i) => Math.max(...lines.map((line) => line[i]!.length)));
  const pad = (cell: string, i: number): string =>
    i === 0 ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!);
  return lines.map((line) => line.map(pad).join("  ").trimEnd()).join("\n");
}

/** The ratio of the medians, and the lowest and the highest of a round. */
function ratioLines({ nic, offloads, median, rounds }: Ratio): string[][] {
  const line = (name: string, value: (m: Measure) => number): string[] => [
    ...[name, onOff(offloads), ...MEASURES.map((m) => digits(value(m), 2)), "", "", ""],
  ];
  const lines = [line(`${nic} to virtio`, (m) => median[m])];
  if (rounds.length < 2) return lines;
  return [
    ...lines,
    line("  lowest round", (m) => Math.min(...rounds.map((round) => round[m]))),
    line("  highest round", (m) => Math.max(...rounds.map((round) => round[m]))),
  ];
}

/** What the columns are, and what the run is worth. */
export function legend(rounds: number, seconds: number): string {
  const lines = [
    "UDP: datagrams a second that the receiver's socket took; at NIC: that the guest's NIC got.",
    `Medians of ${rounds} rounds of ${seconds} s; the raw values are in --json.`,
  ];
  if (rounds < 3) lines.push("Fewer than three rounds: ratios this close to 1 mean nothing.");
  return lines.join("\n");
}

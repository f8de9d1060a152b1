/**
 * Results of the demo and their presentation: medians with
 * their spread, without meaningless digits.
 */
import type { UdpResult } from "../test/support/vm/traffic.ts";
import { median } from "./harness/statistics.ts";

/** One NIC in one iteration. */
export interface Sample {
  tcpFromGuestMbps: number;
  tcpToGuestMbps: number;
  /** Datagrams per second that the receiver's socket took. */
  udpFromGuestPps: number;
  udpToGuestPps: number;
  /** Packets per second of the same flow that the guest's NIC received. */
  udpToGuestNicPps: number;
  rttMs: number;
  /** Lost pings. */
  lost: number;
  /** Raw counts, and the mean of each burst of pings. */
  readonly udpFromGuest?: UdpResult;
  readonly udpToGuest?: UdpResult;
  readonly burstsRttMs?: readonly number[];
}

/** The compared quantities. */
export const MEASURES = [
  "tcpFromGuestMbps",
  "tcpToGuestMbps",
  "udpFromGuestPps",
  "udpToGuestPps",
  "udpToGuestNicPps",
  "rttMs",
] as const;
export type Measure = (typeof MEASURES)[number];

/** One NIC: medians of its iterations, and all of them. */
export interface Row {
  readonly nic: string;
  readonly offloads: boolean;
  readonly medians: Readonly<Record<Measure, number>>;
  readonly samples: readonly Sample[];
  readonly lost: number;
  readonly drops: number;
  readonly interrupts: number;
}

/** A ratio of our NIC to virtio-net, with equal offloads. */
export interface Ratio {
  readonly nic: string;
  readonly offloads: boolean;
  /** Ratios of the medians. */
  readonly median: Readonly<Record<Measure, number>>;
  /** Ratios by iteration. */
  readonly rounds: readonly Readonly<Record<Measure, number>>[];
}

const ofEach = (value: (measure: Measure) => number): Record<Measure, number> =>
  Object.fromEntries(MEASURES.map((m) => [m, value(m)])) as Record<Measure, number>;

export const medians = (samples: readonly Sample[]): Record<Measure, number> =>
  ofEach((measure) => median(samples.map((sample) => sample[measure])));

export function ratios(rows: readonly Row[]): Ratio[] {
  return rows
    .filter(({ nic }) => nic.startsWith("bpfhv/"))
    .map((row) => {
      // Compares rows with equal offloads.
      const rival = rows.find((r) => r.nic === "virtio-net" && r.offloads === row.offloads);
      if (rival === undefined) throw new Error(`nothing to compare ${row.nic} with`);
      const rounds = row.samples.map((sample, n) =>
        ofEach((m) => sample[m] / rival.samples[n]![m]),
      );
      const median = ofEach((m) => row.medians[m] / rival.medians[m]);
      return { nic: row.nic, offloads: row.offloads, median, rounds };
    });
}

/** Number of digits that is meaningful on a busy machine. */
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

/** Ratio of the medians, and the lowest and highest of an iteration. */
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

/** Explains the columns, and how significant the run is. */
export function legend(rounds: number, seconds: number): string {
  const lines = [
    "UDP: datagrams a second that the receiver's socket took; at NIC: that the guest's NIC got.",
    `Medians of ${rounds} rounds of ${seconds} s; the raw values are in --json.`,
  ];
  if (rounds < 3) lines.push("Fewer than three rounds: ratios this close to 1 mean nothing.");
  return lines.join("\n");
}

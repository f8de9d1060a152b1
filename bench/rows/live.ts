/**
 * Live changes of a NIC in a real guest under numbered UDP both ways, every datagram checked at its
 * receiver: upgrades through all ordered pairs of ring formats, take-overs by another server, and
 * the original's handshake, for which the interface restarts.
 *
 * The rate is 60 % of the highest one without loss that a search finds. A rate limit keeps bursts
 * of one flow in the transmit rings; the gaps are those of the other flow, which is even. Windows
 * with an upgrade and windows of the same length without one take turns. The aims are for the round
 * trip without load: the limit lets a ping wait behind a burst, too.
 */
import { withoutVm } from "../../test/support/vm/requirements.ts";
import type { Bench, Result, RowSpec, Sample, SampleOptions } from "../harness/bench.ts";
import { LiveGuest } from "../harness/live-guest.ts";
import { digits, markdown } from "../harness/report.ts";

const SHARE = 0.6;

async function sample(_part: string, { quick }: SampleOptions): Promise<Sample> {
  const live = await LiveGuest.start();
  try {
    const lossless = await live.search(quick ? [500, 1000, 2000, 4000] : STEPS);
    live.rate = Math.round(SHARE * lossless);
    const control = await live.undisturbed(quick ? 2 : 10);
    const upgrades = await live.upgrades(quick ? 9 : 100);
    const tcpMiB = await live.tcp(quick ? 2 : 32);
    const takeovers = await live.takeOvers(quick ? 3 : 20);
    const restarts = await live.restarts(quick ? 3 : 10);
    return {
      values: {
        "load.lossless": 2 * lossless,
        "load.rate": 2 * live.rate,
        "control.lost": control.lost,
        "control.rttMs": live.rttMs,
        "control.loadedRttMs": control.rttMs,
        "control.gapMs": upgrades.idleGaps,
        "control.gapMaxMs": Math.max(...upgrades.idleGaps),
        "control.gapLimitMs": Math.max(...upgrades.idleGaps) + live.rttMs,
        "upgrade.lost": upgrades.faults.lost,
        "upgrade.duplicated": upgrades.faults.duplicated,
        "upgrade.reordered": upgrades.faults.reordered,
        "upgrade.damaged": upgrades.faults.damaged,
        "upgrade.controlLost": restarts.lost,
        "upgrade.inFlight": share(upgrades.inFlight),
        "upgrade.descriptors": upgrades.inFlight,
        "upgrade.gapMs": upgrades.gaps,
        "upgrade.gapMaxMs": Math.max(...upgrades.gaps),
        "upgrade.ms": upgrades.ms,
        "upgrade.cutMs": upgrades.cutMs,
        "upgrade.tcpMiB": tcpMiB,
        "takeover.lost": takeovers.faults.lost,
        "takeover.duplicated": takeovers.faults.duplicated,
        "takeover.reordered": takeovers.faults.reordered,
        "takeover.gapMs": takeovers.gaps,
        "takeover.gapMaxMs": Math.max(...takeovers.gaps),
        "takeover.pauseMs": takeovers.pauses,
      },
    };
  } finally {
    await live.close();
  }
}

/** Datagrams per second, of each of two flows and each direction. */
const STEPS = [500, 750, 1000, 1500, 2000, 3000, 4000, 6000, 8000];

const share = (counts: readonly number[]): number =>
  counts.filter((count) => count > 0).length / counts.length;

const none = { aim: { of: "value", most: 0 }, unit: "packets", isCount: true } as const;
const rows: readonly RowSpec[] = [
  { name: "load.lossless", unit: "packets/s" },
  { name: "load.rate", unit: "packets/s" },
  { name: "control.lost", ...none },
  { name: "control.rttMs", unit: "ms" },
  { name: "control.loadedRttMs", unit: "ms" },
  { name: "control.gapMs", unit: "ms" },
  { name: "control.gapMaxMs", unit: "ms" },
  { name: "control.gapLimitMs", unit: "ms" },
  { name: "upgrade.lost", baseline: "upgrade.controlLost", ...none },
  ...["duplicated", "reordered", "damaged"].map((fault) => ({ name: `upgrade.${fault}`, ...none })),
  { name: "upgrade.controlLost", ...none, aim: { of: "value", least: 1 } },
  {
    name: "upgrade.inFlight",
    unit: "share of cuts",
    aim: { of: "value", least: 0.5 },
    isCount: true,
  },
  { name: "upgrade.descriptors", unit: "in flight", isCount: true },
  { name: "upgrade.gapMs", unit: "ms", baseline: "control.rttMs", aim: { of: "ratio", most: 1 } },
  {
    ...{ name: "upgrade.gapMaxMs", unit: "ms", baseline: "control.gapLimitMs" },
    aim: { of: "ratio", most: 1 },
  },
  { name: "upgrade.ms", unit: "ms" },
  { name: "upgrade.cutMs", unit: "ms" },
  { name: "upgrade.tcpMiB", unit: "MiB", isCount: true },
  ...["lost", "duplicated", "reordered"].map((fault) => ({ name: `takeover.${fault}`, ...none })),
  {
    ...{ name: "takeover.gapMs", unit: "ms", baseline: "control.gapMs" },
    aim: { of: "value", most: 20 },
  },
  { name: "takeover.gapMaxMs", unit: "ms", baseline: "control.gapMaxMs" },
  { name: "takeover.pauseMs", unit: "ms" },
];

const countOf = ({ rows }: Result, name: string): number =>
  rows.find((row) => row.name === name)?.raw.length ?? 0;

function table(result: Result): string {
  const cell = (name: string): string => {
    const row = result.rows.find((each) => each.name === name);
    return row === undefined ? "-" : digits(row.value);
  };
  const faults = (what: string): string[] =>
    ["lost", "duplicated", "reordered"].map((fault) => cell(`${what}.${fault}`));
  const gaps = (what: string): string[] => [cell(`${what}.gapMs`), cell(`${what}.gapMaxMs`)];
  return markdown([
    ["", "times", "lost", "duplicated", "reordered", "gap, ms: median", "longest"],
    ["no change", `${countOf(result, "control.gapMs") / 2}`, cell("control.lost"), "-", "-"].concat(
      gaps("control"),
    ),
    ["upgrade", `${countOf(result, "upgrade.ms")}`, ...faults("upgrade"), ...gaps("upgrade")],
    ["take-over", `${countOf(result, "takeover.pauseMs")}`, ...faults("takeover")].concat(
      gaps("takeover"),
    ),
    ["restart", "-", cell("upgrade.controlLost"), "-", "-", "-", "-"],
  ]);
}

/** Gaps of each kind of window, as bars: how many were that long. */
function picture({ rows }: Result): string {
  const kinds = ["control", "upgrade", "takeover"];
  const raw = kinds.map((kind) => rows.find(({ name }) => name === `${kind}.gapMs`)?.raw ?? []);
  const classes = Array.from({ length: 12 }, (_, i) => 2 ** i);
  const used = classes.filter((from) => raw.some((gaps) => gaps.some((gap) => isIn(gap, from))));
  const lines = used.flatMap((from) =>
    kinds.map((kind, i) => {
      const inside = raw[i]!.filter((gap) => isIn(gap, from)).length;
      const bar = "#".repeat(Math.ceil((40 * inside) / Math.max(1, raw[i]!.length)));
      const label = i === 0 ? `${from === 1 ? 0 : from} to ${2 * from} ms` : "";
      return `${label.padEnd(15)} ${kind.padEnd(8)} ${bar} ${inside}`.trimEnd();
    }),
  );
  return ["```", ...lines, "```"].join("\n");
}

const isIn = (gap: number, from: number): boolean => gap < 2 * from && (gap >= from || from === 1);

export const bench: Bench = {
  name: "live",
  about: "upgrades, take-overs and restarts of a guest's NIC under numbered packets",
  vm: true,
  rounds: 1,
  limit: 0.15,
  seconds: 900,
  parts: ["one guest"],
  rows,
  problem: async () => (await withoutVm()) || undefined,
  sample,
  tables: { "": table, gaps: picture },
};

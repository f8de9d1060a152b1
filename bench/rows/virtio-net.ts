/**
 * Our NICs beside virtio-net in one guest on stock QEMU: what `script/demo` measures, booted anew
 * each time. Flows of UDP are not paced; datagrams are counted at the receiver's socket, packets at
 * the receiver's NIC. The control is each virtio-net NIC measured twice, as if it were two.
 */
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { FORMATS } from "../../src/devices/registry.ts";
import { withoutVm } from "../../test/support/vm/requirements.ts";
import { MEASURES, type Measure, type Row as NicRow } from "../demo-results.ts";
import type { Bench, Result, Row, Sample, SampleOptions } from "../harness/bench.ts";
import { digits, markdown } from "../harness/report.ts";

const DEMO = fileURLToPath(new URL("../demo.js", import.meta.url));

const NAMES: Readonly<Record<Measure, readonly [name: string, unit: string]>> = {
  tcpFromGuestMbps: ["TCP out", "Mb/s"],
  tcpToGuestMbps: ["TCP in", "Mb/s"],
  udpFromGuestPps: ["UDP out", "datagrams/s"],
  udpToGuestPps: ["UDP in at the socket", "datagrams/s"],
  udpToGuestNicPps: ["UDP in at the NIC", "packets/s"],
  rttMs: ["round trip", "ms"],
};
const LIVELOCK = NAMES.udpToGuestPps[0];

const devices = FORMATS.map(({ name, features }) => ({ name, offloads: features !== 0 }));
const rivalOf = (offloads: boolean): string => `virtio-net${offloads ? " with offloads" : ""}`;
const RIVALS = [rivalOf(false), rivalOf(true)];

function nameOf({ nic, offloads }: Pick<NicRow, "nic" | "offloads">): string {
  return nic.startsWith("bpfhv/") ? nic.slice("bpfhv/".length) : rivalOf(offloads);
}

function sample(_part: string, { quick, round }: SampleOptions): Sample {
  const json = join(tmpdir(), `demo-${process.pid}.json`);
  const words = ["--rounds", "1", "--seconds", quick ? "1" : "2", "--json", json];
  words.push("--devices", devices.map(({ name }) => name).join(","));
  execFileSync(process.execPath, [DEMO, ...words, "--first", String(round), "--twice"], {
    stdio: ["ignore", "ignore", "inherit"],
  });
  const { rows } = JSON.parse(readFileSync(json, "utf8")) as { readonly rows: readonly NicRow[] };
  const values: Record<string, number> = {};
  const controls: Record<string, readonly [number, number]> = {};
  for (const row of rows) {
    for (const measure of MEASURES) {
      const name = `${nameOf(row)}/${NAMES[measure][0]}`;
      if (row.nic.endsWith(" again")) controls[name] = [values[name]!, row.medians[measure]];
      else values[name] = row.medians[measure];
    }
  }
  return { values, controls };
}

const rowsOf = ({ name, offloads }: (typeof devices)[number]) =>
  MEASURES.map((measure) => {
    const [what, unit] = NAMES[measure];
    const baseline = `${rivalOf(offloads)}/${what}`;
    return { name: `${name}/${what}`, unit, baseline, control: baseline };
  });

const COLUMNS = MEASURES.map((measure) => NAMES[measure][0]);
const find = (result: Result, name: string): Row | undefined =>
  result.rows.find((row) => row.name === name);

const ratio = (row: Row | undefined): string =>
  row === undefined || row.ratio === null
    ? "-"
    : `${digits(row.ratio, 2)}${row.counted ? "" : " (not counted)"}`;

function range(row: Row | undefined): string {
  const all = row?.ratios ?? [];
  if (all.length < 2) return "-";
  return `${digits(Math.min(...all), 2)} to ${digits(Math.max(...all), 2)}`;
}

function ratios(result: Result): string {
  const line = (head: string, name: string, cell: (row: Row | undefined) => string) => [
    head,
    ...COLUMNS.map((what) => cell(find(result, `${name}/${what}`))),
  ];
  return markdown([
    ["NIC (ratio to virtio-net, like with like)", ...COLUMNS],
    ...devices.map(({ name, offloads }) =>
      line(`${name}, ${offloads ? "" : "no "}offloads`, name, ratio),
    ),
    ...devices.map(({ name }) => line(`lowest to highest round: ${name}`, name, range)),
  ]);
}

function absolute(result: Result): string {
  const cell = (name: string, what: string): string =>
    digits(find(result, `${name}/${what}`)?.value ?? Number.NaN);
  const units = MEASURES.map((measure) => NAMES[measure].join(", "));
  return markdown([
    ["NIC", ...units],
    ...[...devices.map(({ name }) => name), ...RIVALS].map((name) => [
      name,
      ...COLUMNS.map((what) => cell(name, what)),
    ]),
  ]);
}

export const bench: Bench = {
  name: "virtio-net",
  about: "TCP, small UDP and round trips of our NICs and virtio-net in one guest",
  vm: true,
  rounds: 3,
  limit: 0.2,
  limits: Object.fromEntries(RIVALS.map((name) => [`${name}/${LIVELOCK}`, 4])),
  seconds: 400,
  parts: ["all NICs"],
  rows: [
    ...RIVALS.flatMap((name) =>
      MEASURES.map((measure) => {
        const [what, unit] = NAMES[measure];
        return { name: `${name}/${what}`, unit, control: `${name}/${what}` };
      }),
    ),
    ...devices.flatMap(rowsOf),
  ],
  problem: async () => (await withoutVm()) || undefined,
  sample,
  tables: { "": ratios, absolute },
};

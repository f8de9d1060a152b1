/**
 * What the host pays per packet at a fixed load of small UDP datagrams: CPU time of all threads of
 * the NIC's server and of QEMU, without the virtual CPU. Packets are counted at the TAP, within the
 * flow. For our NICs also kicks, interrupts, turns and sleeps of the loop per packet. Control:
 * virtio-net without offloads, measured before and after the others at every load.
 */
import { readdirSync, readFileSync } from "node:fs";
import { type Guest, type Netns, sleep } from "../../test/support/vm/harness.ts";
import { withoutVm } from "../../test/support/vm/requirements.ts";
import type { Direction } from "../../test/support/vm/traffic.ts";
import type { Bench, Result, Row, RowSpec, Sample, SampleOptions } from "../harness/bench.ts";
import {
  type AttachedCard,
  CARDS,
  OURS,
  RIVALS,
  rivalOf,
  withCards,
} from "../harness/guest-nics.ts";
import { digits, markdown } from "../harness/report.ts";

/** Bytes of payload of `Link.udp`. */
const PAYLOAD = 64;

const LOADS: Readonly<Record<string, { direction: Direction; pps: number }>> = {
  "5k out": { direction: "from guest", pps: 5000 },
  "5k in": { direction: "to guest", pps: 5000 },
  "15k out": { direction: "from guest", pps: 15_000 },
  "15k in": { direction: "to guest", pps: 15_000 },
};
const NAMES = Object.keys(LOADS);
const COUNTS = ["kicks", "interrupts", "turns", "sleeps"] as const;

/** Iperf3's start at both ends, before packets flow evenly. */
const START_MS = 1500;
/** Share of the load below which the table shows the rate that was reached. */
const REACHED = 0.9;

/** Nanoseconds that each thread has run, without those of virtual CPUs. */
function runTimes(pid: number, without: ReadonlySet<number>): Map<number, number> {
  const times = new Map<number, number>();
  for (const name of readdirSync(`/proc/${pid}/task`)) {
    if (without.has(Number(name))) continue;
    try {
      const text = readFileSync(`/proc/${pid}/task/${name}/schedstat`, "utf8");
      times.set(Number(name), Number(text.split(" ")[0]));
    } catch {
      // The thread has ended.
    }
  }
  return times;
}

interface Snapshot {
  readonly times: ReadonlyMap<number, number>;
  readonly packets: number;
  readonly counts: Readonly<Record<string, number>>;
}

class Meter {
  readonly #guest: Guest;
  readonly #netns: Netns;
  readonly #virtualCpus: ReadonlySet<number>;

  constructor(guest: Guest, netns: Netns, virtualCpus: ReadonlySet<number>) {
    this.#guest = guest;
    this.#netns = netns;
    this.#virtualCpus = virtualCpus;
  }

  /** @returns the cost of a packet in microseconds, the rate, and counts per packet */
  async measure(card: AttachedCard, load: string, seconds: number) {
    const { direction, pps } = LOADS[load]!;
    const flow = card.link.udp(direction, seconds + (2 * START_MS) / 1000, `${pps * PAYLOAD * 8}`);
    try {
      await sleep(START_MS);
      const started = performance.now();
      const before = await this.#snapshot(card, direction);
      await sleep(1000 * seconds);
      const after = await this.#snapshot(card, direction);
      const took = (performance.now() - started) / 1000;
      const packets = after.packets - before.packets;
      if (packets <= 0) throw new Error(`${card.name}, ${load}: no packet in ${took} s`);
      let nanoseconds = 0;
      for (const [thread, time] of after.times) {
        nanoseconds += time - (before.times.get(thread) ?? 0);
      }
      const counts = Object.entries(after.counts).map(
        ([name, count]) => [name, (count - before.counts[name]!) / packets] as const,
      );
      return { cost: nanoseconds / 1000 / packets, rate: packets / took, counts };
    } finally {
      await flow;
    }
  }

  async #snapshot({ tap, server }: AttachedCard, direction: Direction): Promise<Snapshot> {
    const status = await server?.status();
    const side = direction === "from guest" ? "rx" : "tx";
    const path = `/sys/class/net/${tap}/statistics/${side}_packets`;
    const packets = Number(this.#netns.exec(["cat", path]));
    const times = new Map([
      ...runTimes(this.#guest.pid, this.#virtualCpus),
      ...(server === undefined ? [] : runTimes(server.pid, new Set())),
    ]);
    if (status === undefined) return { times, packets, counts: {} };
    const total = (name: "kicks" | "interrupts"): number =>
      status.queues.reduce((sum, { counters }) => sum + counters[name], 0);
    const { turns, sleeps } = status.loop;
    const counts = { kicks: total("kicks"), interrupts: total("interrupts") };
    return { times, packets, counts: { ...counts, turns: turns!, sleeps: sleeps! } };
  }
}

async function virtualCpus(guest: Guest): Promise<Set<number>> {
  const cpus = (await guest.qmp("query-cpus-fast")) as readonly { readonly "thread-id": number }[];
  return new Set(cpus.map((cpu) => cpu["thread-id"]));
}

function sample(_part: string, { quick, round }: SampleOptions): Promise<Sample> {
  return withCards(async ({ guest, netns, cards }) => {
    const meter = new Meter(guest, netns, await virtualCpus(guest));
    const seconds = quick ? 1 : 3;
    const values: Record<string, number> = {};
    const controls: Record<string, readonly [number, number]> = {};
    // Fills the ARP tables, and wakes everything up.
    for (const { link } of cards) await link.pingFromGuest(3);
    const plain = cards.find(({ name }) => name === rivalOf(false))!;
    for (const load of quick ? NAMES.slice(0, 2) : NAMES) {
      const { cost: first } = await meter.measure(plain, load, seconds);
      for (const i of cards.keys()) {
        const card = cards[(i + round) % cards.length]!;
        const { cost, rate, counts } = await meter.measure(card, load, seconds);
        values[`${card.name}/${load}`] = cost;
        values[`${card.name}/${load}/rate`] = rate;
        for (const [name, count] of counts) values[`${card.name}/${load}/${name}`] = count;
      }
      controls[load] = [first, (await meter.measure(plain, load, seconds)).cost];
    }
    return { values, controls };
  });
}

const rowsOf = (name: string, isOurs: boolean, offloads: boolean): RowSpec[] =>
  NAMES.flatMap((load) => [
    {
      ...{ name: `${name}/${load}`, unit: "us", control: load },
      ...(isOurs ? { baseline: `${rivalOf(offloads)}/${load}` } : {}),
      ...(isOurs ? { aim: { of: "ratio", most: 0.8 } as const } : {}),
    },
    { name: `${name}/${load}/rate`, unit: "packets/s", control: load },
    ...(isOurs ? COUNTS : []).map((count) => ({
      ...{ name: `${name}/${load}/${count}`, unit: "a packet", control: load },
    })),
  ]);

const find = (result: Result, name: string): Row | undefined =>
  result.rows.find((row) => row.name === name);

function costs(result: Result): string {
  const cell = (name: string, load: string): string => {
    const row = find(result, `${name}/${load}`);
    if (row === undefined) return "-";
    const rate = find(result, `${name}/${load}/rate`)?.value ?? 0;
    const ratio = row.ratio === null ? "" : ` (${row.ratio.toFixed(2)})`;
    const reached = rate < REACHED * LOADS[load]!.pps ? `, at ${digits(rate / 1000)} k/s` : "";
    return `${digits(row.value)}${ratio}${reached}${row.counted ? "" : ", not counted"}`;
  };
  return markdown([
    ["CPU time per packet, us (to virtio-net)", ...NAMES],
    ...CARDS.map(({ name }) => [name, ...NAMES.map((load) => cell(name, load))]),
  ]);
}

function counted(result: Result): string {
  return markdown([
    ["per packet", ...NAMES],
    ...OURS.flatMap(({ name }) =>
      COUNTS.map((count) => [
        `${name}: ${count}`,
        ...NAMES.map((load) =>
          digits(find(result, `${name}/${load}/${count}`)?.value ?? Number.NaN, 2),
        ),
      ]),
    ),
  ]);
}

export const bench: Bench = {
  name: "efficiency",
  about: "host CPU time per packet at fixed loads, server and QEMU, beside virtio-net",
  vm: true,
  rounds: 3,
  limit: 0.2,
  seconds: 400,
  parts: ["all NICs"],
  rows: [
    ...RIVALS.flatMap(({ name, offloads }) => rowsOf(name, false, offloads)),
    ...OURS.flatMap(({ name, offloads }) => rowsOf(name, true, offloads)),
  ],
  problem: async () => (await withoutVm()) || undefined,
  sample,
  tables: { "": costs, counts: counted },
};

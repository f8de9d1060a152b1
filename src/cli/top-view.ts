/**
 * What `bpfhv top` shows: rates between two looks at each NIC, as lines that fit a terminal. Pure.
 */

import type { ServedNic } from "../control/nic-answer.ts";
import { DROP_COUNTERS, type QueueCounterName } from "../memory/counters.ts";
import type { QueueStatus } from "../nic/status.ts";

/** One NIC at one moment. */
export interface Look {
  /** Milliseconds on any steady clock. */
  readonly at: number;
  readonly nic: ServedNic;
}

/** One queue between two looks. Rates are per second. */
export interface QueueRates {
  readonly queue: string;
  readonly packets: number;
  readonly megabits: number;
  /** Packets per round that moved any. */
  readonly batch: number;
  readonly kicks: number;
  readonly interrupts: number;
  /** By reason, only those that grew. */
  readonly drops: Readonly<Partial<Record<QueueCounterName, number>>>;
  readonly broken: boolean;
  /** Published and not used yet, now; null: the queue does not run. */
  readonly fill: number | null;
  readonly bufs: number;
}

export interface NicRates {
  readonly socket: string;
  readonly pid: number;
  readonly device: string;
  readonly port: string;
  readonly link: "up" | "down";
  readonly step: string;
  readonly programs: string;
  readonly generation: number;
  readonly lastRefusal: string;
  readonly queues: readonly QueueRates[];
}

/**
 * Rates of a NIC; from its start if there is no earlier sample, or another process answers on its
 * socket.
 */
export function ratesOf(before: Look | undefined, now: Look): NicRates {
  const same = before !== undefined && before.nic.pid === now.nic.pid;
  const seconds = same ? (now.at - before.at) / 1000 : 0;
  const { socket, pid, device, port, link, step, programs, generation, lastRefusal } = now.nic;
  const queues = now.nic.queues.map((queue) => {
    const old = same ? before.nic.queues.find((each) => each.queue === queue.queue) : undefined;
    return queueRates(old, queue, seconds);
  });
  return { socket, pid, device, port, link, step, programs, generation, lastRefusal, queues };
}

function queueRates(
  before: QueueStatus | undefined,
  now: QueueStatus,
  seconds: number,
): QueueRates {
  const grown = (name: QueueCounterName) =>
    before === undefined ? 0 : Math.max(0, now.counters[name] - before.counters[name]);
  const perSecond = (name: QueueCounterName) => (seconds > 0 ? grown(name) / seconds : 0);
  const drops: Partial<Record<QueueCounterName, number>> = {};
  for (const name of DROP_COUNTERS) if (grown(name) > 0) drops[name] = perSecond(name);
  return {
    queue: now.queue,
    packets: perSecond("packets"),
    megabits: (perSecond("bytes") * 8) / 1e6,
    batch: grown("batches") > 0 ? grown("packets") / grown("batches") : 0,
    kicks: perSecond("kicks"),
    interrupts: perSecond("interrupts"),
    drops,
    ...{ broken: now.broken, fill: now.fill, bufs: now.bufs },
  };
}

/**
 * A column of the table of queues; those that a narrow terminal has no room for go by rank, highest
 * first.
 */
interface Column {
  readonly head: string;
  readonly width: number;
  readonly rank: number;
  readonly cell: (queue: QueueRates) => string;
}

const COLUMNS: readonly Column[] = [
  { head: "packets/s", width: 11, rank: 0, cell: (queue) => count(queue.packets) },
  { head: "Mb/s", width: 9, rank: 1, cell: (queue) => megabits(queue.megabits) },
  { head: "batch", width: 7, rank: 6, cell: (queue) => queue.batch.toFixed(1) },
  { head: "kicks/s", width: 9, rank: 4, cell: (queue) => count(queue.kicks) },
  { head: "irqs/s", width: 9, rank: 5, cell: (queue) => count(queue.interrupts) },
  { head: "drops/s", width: 9, rank: 2, cell: (queue) => count(dropsOf(queue)) },
  { head: "ring", width: 11, rank: 3, cell: (queue) => ring(queue) },
];
const NAME_WIDTH = 7;

function columnsFor(width: number): readonly Column[] {
  let columns = COLUMNS;
  const needs = () => columns.reduce((sum, each) => sum + each.width, NAME_WIDTH);
  while (needs() > width && columns.length > 1) {
    const last = Math.max(...columns.map(({ rank }) => rank));
    columns = columns.filter(({ rank }) => rank !== last);
  }
  return columns;
}

/** Lines for a terminal. */
export function render(nics: readonly NicRates[], width = 80): string[] {
  if (nics.length === 0) {
    return ["no NIC is served on this machine:", "start one with bpfhv serve"].map((line) =>
      line.slice(0, width),
    );
  }
  const lines = nics.flatMap((nic) => ["", ...renderNic(nic, width)]);
  return lines.slice(1).map((line) => line.slice(0, width));
}

function renderNic(nic: NicRates, width: number): string[] {
  const state = nic.programs === "-" ? nic.step : `${nic.step}, ${nic.programs}`;
  const what = `${nic.device}  ${nic.port}  link ${nic.link}`;
  const lines = [
    `${shortened(nic.socket, Math.max(12, width - what.length - 2))}  ${what}`,
    `  pid ${nic.pid}  generation ${nic.generation}  ${state}`,
  ];
  if (nic.lastRefusal !== "") lines.push(`  refused: ${nic.lastRefusal}`);
  const columns = columnsFor(width);
  const head = columns.map((each) => each.head.padStart(each.width)).join("");
  return [
    ...lines,
    `${"  queue".padEnd(NAME_WIDTH)}${head}`,
    ...nic.queues.flatMap((queue) => renderQueue(queue, columns)),
  ];
}

function renderQueue(queue: QueueRates, columns: readonly Column[]): string[] {
  const cells = columns.map((each) => each.cell(queue).padStart(each.width)).join("");
  const line = `${`  ${queue.queue}`.padEnd(NAME_WIDTH)}${cells}`;
  const drops = Object.entries(queue.drops) as [QueueCounterName, number][];
  const reasons = drops.map(([name, rate]) => `${name} ${count(rate)}`).join("  ");
  return reasons === "" ? [line] : [line, `         ${reasons}`];
}

function dropsOf({ drops }: QueueRates): number {
  return Object.values(drops).reduce((sum, rate) => sum + rate, 0);
}

function megabits(value: number): string {
  return value.toFixed(value < 100 ? 1 : 0);
}

/** Buffers that wait for the host, of how many: free ones to receive into, packets to send. */
function ring({ fill, bufs, broken }: QueueRates): string {
  if (broken) return "broken";
  return fill === null ? "-" : `${fill}/${bufs}`;
}

/** 950, 12.3k, 1.20M: at most 6 characters. */
export function count(value: number): string {
  if (value < 1000) return value < 10 && value % 1 !== 0 ? value.toFixed(1) : value.toFixed(0);
  if (value < 1e6) return `${(value / 1e3).toFixed(value < 1e5 ? 1 : 0)}k`;
  return `${(value / 1e6).toFixed(2)}M`;
}

/** The end of a path is what tells sockets apart. */
function shortened(path: string, width: number): string {
  return path.length <= width ? path : `…${path.slice(path.length - width + 1)}`;
}

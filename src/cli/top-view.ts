/** What `bpfhv top` shows: rates between two looks at each NIC, as lines of at most 80 columns. Pure. */
import { DROP_COUNTERS, type QueueCounterName } from "../devices/counters.ts";
import type { NicStatus, QueueStatus } from "../nic/status.ts";

/** One NIC at one moment. */
export interface Look {
  /** Milliseconds on any steady clock. */
  readonly at: number;
  readonly nic: NicStatus & { readonly socket: string; readonly pid: number };
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

/** Rates of a NIC; from its start where there is no earlier look, or another process answers on its socket. */
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

const HEAD = "  queue  packets/s     Mb/s  batch  kicks/s   irqs/s  drops/s       ring";

/** Lines for a terminal. */
export function render(nics: readonly NicRates[], width = 80): string[] {
  if (nics.length === 0) return ["no NIC is served on this machine: start one with bpfhv serve"];
  const lines = nics.flatMap((nic) => ["", ...renderNic(nic)]);
  return lines.slice(1).map((line) => line.slice(0, width));
}

function renderNic(nic: NicRates): string[] {
  const state = nic.programs === "-" ? nic.step : `${nic.step}, ${nic.programs}`;
  const lines = [
    `${shortened(nic.socket, 34)}  ${nic.device}  ${nic.port}  link ${nic.link}`,
    `  pid ${nic.pid}  generation ${nic.generation}  ${state}`,
  ];
  if (nic.lastRefusal !== "") lines.push(`  refused: ${nic.lastRefusal}`);
  return [...lines, HEAD, ...nic.queues.flatMap(renderQueue)];
}

function renderQueue(queue: QueueRates): string[] {
  const drops = Object.entries(queue.drops) as [QueueCounterName, number][];
  const total = drops.reduce((sum, [, rate]) => sum + rate, 0);
  const cells = [
    count(queue.packets).padStart(11),
    queue.megabits.toFixed(queue.megabits < 100 ? 1 : 0).padStart(9),
    queue.batch.toFixed(1).padStart(7),
    count(queue.kicks).padStart(9),
    count(queue.interrupts).padStart(9),
    count(total).padStart(9),
    ring(queue).padStart(11),
  ];
  const line = `  ${queue.queue.padEnd(5)}${cells.join("")}`;
  const reasons = drops.map(([name, rate]) => `${name} ${count(rate)}`).join("  ");
  return reasons === "" ? [line] : [line, `         ${reasons}`];
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

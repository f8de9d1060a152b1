/** `bpfhv status`: what a running NIC is doing, or why it is not. */
import { Command } from "commander";
import type { ServedNic } from "../control/nic-answer.ts";
import { DROP_COUNTERS } from "../memory/counters.ts";
import type { QueueStatus } from "../nic/status.ts";
import { askNic } from "./ask-nic.ts";

const WIDTH = 80;

export function statusCommand(): Command {
  return new Command("status")
    .description("show a running NIC: handshake, programs, counters")
    .argument("<socket>", "the socket given to `bpfhv serve --socket`")
    .option("--json", "as JSON", false)
    .action(async (socket: string, flags: { json: boolean }) => {
      const status = await askNic(socket);
      const text = flags.json ? JSON.stringify(status, null, 2) : describe(status);
      process.stdout.write(`${text}\n`);
    });
}

/** For people, at most 80 columns but for long paths. */
export function describe(status: ServedNic): string {
  const lines = [
    `${status.device} on ${status.socket} (pid ${status.pid}), packets to ${status.port}`,
    `  server      bpfhv ${status.version}, up ${duration(status.uptimeSeconds)}`,
    `  mac         ${status.mac}`,
    `  link        ${status.link}`,
    `  handshake   ${status.step}`,
    `  programs    ${status.programs} (generation ${status.generation})`,
    `  proof       ${status.proof}`,
    `  features    ${status.features.join(" ") || "none"}`,
  ];
  const { firstRefusal: first, lastRefusal: last } = status;
  if (last !== "") lines.push(`  refused     ${last}`);
  if (first !== "" && first !== last) lines.push(`    at first  ${first}`);
  lines.push("", "  queue      packets        bytes  batches    kicks interrupts    drops");
  return [...lines, ...status.queues.flatMap(describeQueue)].join("\n");
}

function describeQueue({ queue, counters, broken }: QueueStatus): string[] {
  const drops = DROP_COUNTERS.filter((name) => counters[name] > 0);
  const total = drops.reduce((sum, name) => sum + counters[name], 0);
  const line =
    `  ${queue.padEnd(5)}${cell(counters.packets, 13)}${cell(counters.bytes, 13)}` +
    `${cell(counters.batches, 9)}${cell(counters.kicks, 9)}${cell(counters.interrupts, 11)}` +
    `${cell(total, 9)}${broken ? " broken" : ""}`;
  return [line, ...wrapped(drops.map((name) => `${name} ${counters[name]}`))];
}

/** Words in lines of their own below a queue. */
function wrapped(words: readonly string[]): string[] {
  const lines: string[] = [];
  for (const word of words) {
    const last = lines.at(-1);
    if (last === undefined || last.length + 2 + word.length > WIDTH) lines.push(`         ${word}`);
    else lines[lines.length - 1] = `${last}  ${word}`;
  }
  return lines;
}

/** 59 s, 5 min 2 s, 3 h 7 min, 12 d 4 h. */
export function duration(seconds: number): string {
  const s = Math.floor(seconds);
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${s % 60} s`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
}

function cell(value: number, width: number): string {
  return String(value).padStart(width);
}

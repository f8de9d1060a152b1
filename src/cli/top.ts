/**
 * `bpfhv top`: all NICs of the machine, live: rates, batches, kicks, interrupts, drops by reason,
 * ring fill.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { Command } from "commander";
import { failure, Usage } from "../errors.ts";
import { type Found, lookAtNics } from "./find-nics.ts";
import { TopScreen } from "./top-screen.ts";
import { type NicRates, ratesOf, render } from "./top-view.ts";

interface TopFlags {
  interval: string;
  count?: string;
  json: boolean;
}

/** One look at all NICs, and what the one before says of their rates. */
interface Seen {
  readonly nics: readonly NicRates[];
  readonly found: Found;
}

const FIRST_MS = 1000;

export function topCommand(): Command {
  return new Command("top")
    .description("show all NICs served on this machine, live; one block per look when piped")
    .argument("[socket...]", "only these: what was given to `bpfhv serve --socket`")
    .option("--interval <seconds>", "time between looks, 0.1 to 3600", "1")
    .option("--count <n>", "end after so many looks (default: when interrupted)")
    .option("--json", "one line of JSON per look", false)
    .addHelpText(
      "after",
      "\nWithout sockets it asks servers of root and of your own; name those of other users.",
    )
    .action((sockets: string[], flags: TopFlags) => top(sockets, flags));
}

async function top(sockets: readonly string[], flags: TopFlags): Promise<void> {
  const interval = Number(flags.interval);
  if (!(interval >= 0.1 && interval <= 3600)) {
    throw new Usage(`--interval ${flags.interval}: give seconds from 0.1 to 3600`);
  }
  if (flags.count !== undefined && !/^[1-9]\d{0,8}$/.test(flags.count)) {
    throw new Usage(`--count ${flags.count}: give a whole number from 1`);
  }
  const looks = Number(flags.count ?? Number.POSITIVE_INFINITY);
  const ended = new AbortController();
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT"] as const) {
    process.once(signal, () => ended.abort());
  }
  // `bpfhv top | head`: whoever read has gone.
  process.stdout.on("error", () => ended.abort());
  const live = process.stdout.isTTY && !flags.json;
  const screen = live ? new TopScreen(() => ended.abort()) : null;
  try {
    const last = await watch(sockets, interval * 1000, looks, ended.signal, (seen) => {
      if (screen !== null) screen.show((width) => linesOf(seen, width));
      else if (flags.json) process.stdout.write(`${JSON.stringify(seen.nics)}\n`);
      else process.stdout.write(`${linesOf(seen, 80).join("\n")}\n\n`);
    });
    const missing = sockets.length > 0 ? (last?.problems ?? []) : [];
    if (missing.length > 0 && !ended.signal.aborted) throw failure(missing.join("; "));
  } finally {
    screen?.close();
  }
}

function linesOf({ nics, found }: Seen, width: number): string[] {
  const { problems, foreign } = found;
  const notes = problems.map((text) => text.slice(0, width));
  if (foreign > 0) {
    const whose = `${foreign} control socket${foreign === 1 ? "" : "s"} of other users`;
    notes.push(...fold(`${whose} not asked: name them, or ask as root`, width));
  }
  if (nics.length === 0 && notes.length > 0) return notes;
  return [...render(nics, width), ...(notes.length > 0 ? ["", ...notes] : [])];
}

/** Lines of at most `width` columns. */
function fold(text: string, width: number): string[] {
  const lines: string[] = [];
  for (let from = 0; from < text.length; from += width) lines.push(text.slice(from, from + width));
  return lines;
}

/** @returns the last look */
async function watch(
  sockets: readonly string[],
  intervalMs: number,
  looks: number,
  signal: AbortSignal,
  show: (seen: Seen) => void,
): Promise<Found | undefined> {
  let before: Found | undefined;
  // Rates need two looks; the first is only taken.
  for (let n = 0; n <= looks && !signal.aborted; n++) {
    const pause = n === 1 ? Math.min(intervalMs, FIRST_MS) : intervalMs;
    if (n > 0) await sleep(pause, undefined, { signal }).catch(() => {});
    if (signal.aborted) break;
    const found = await lookAtNics(sockets);
    const nics = [...found.looks].map(([path, look]) => ratesOf(before?.looks.get(path), look));
    if (n > 0) show({ nics, found });
    before = found;
  }
  return before;
}

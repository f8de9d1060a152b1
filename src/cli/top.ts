/** `bpfhv top`: all NICs of the machine, live: rates, batches, kicks, interrupts, drops by reason, ring fill. */
import { readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { Command } from "commander";
import { askControl } from "./control-socket.ts";
import { Usage } from "./errors.ts";
import { type Look, type NicRates, ratesOf, render } from "./top-view.ts";

interface TopFlags {
  interval: string;
  count?: string;
  json: boolean;
}

const SUFFIX = ".ctl";
/** A NIC that takes longer is shown the next time. */
const ANSWER_MS = 500;
const HOME = "\x1b[H";
const CLEAR_LINE = "\x1b[K";
const CLEAR_BELOW = "\x1b[J";
const CURSOR = { hide: "\x1b[?25l", show: "\x1b[?25h" } as const;

export function topCommand(): Command {
  return new Command("top")
    .description("show all NICs served on this machine, live; one block per look when piped")
    .argument("[socket...]", "only these: what was given to `bpfhv serve --socket`")
    .option("--interval <seconds>", "time between looks, 0.1 to 3600", "1")
    .option("--count <n>", "end after so many looks (default: when interrupted)")
    .option("--json", "one line of JSON per look", false)
    .action((sockets: string[], flags: TopFlags) => top(sockets, flags));
}

async function top(sockets: readonly string[], flags: TopFlags): Promise<void> {
  const interval = Number(flags.interval);
  if (!(interval >= 0.1 && interval <= 3600)) {
    throw new Usage(`--interval ${flags.interval}: give seconds from 0.1 to 3600`);
  }
  const looks = flags.count === undefined ? Number.POSITIVE_INFINITY : Number(flags.count);
  if (!(looks >= 1)) throw new Usage(`--count ${flags.count}: give a whole number from 1`);
  const interrupted = new AbortController();
  process.once("SIGINT", () => interrupted.abort());
  process.once("SIGTERM", () => interrupted.abort());
  const live = process.stdout.isTTY && !flags.json;
  if (live) process.stdout.write(`${CURSOR.hide}\x1b[2J`);
  try {
    await watch(sockets, interval * 1000, looks, interrupted.signal, (nics) =>
      process.stdout.write(flags.json ? `${JSON.stringify(nics)}\n` : screen(nics, live)),
    );
  } finally {
    if (live) process.stdout.write(CURSOR.show);
  }
}

function screen(nics: readonly NicRates[], live: boolean): string {
  const lines = render(nics, live ? Math.max(80, process.stdout.columns) : 80);
  if (!live) return `${lines.join("\n")}\n\n`;
  const shown = lines.slice(0, Math.max(1, process.stdout.rows - 1));
  return `${HOME}${shown.map((line) => `${line}${CLEAR_LINE}\n`).join("")}${CLEAR_BELOW}`;
}

async function watch(
  sockets: readonly string[],
  intervalMs: number,
  looks: number,
  signal: AbortSignal,
  show: (nics: readonly NicRates[]) => void,
): Promise<void> {
  let before = new Map<string, Look>();
  // Rates need two looks; the first is only taken.
  for (let n = 0; n <= looks && !signal.aborted; n++) {
    if (n > 0)
      await sleep(n === 1 ? Math.min(intervalMs, 1000) : intervalMs, undefined, { signal }).catch(
        () => {},
      );
    if (signal.aborted) return;
    const now = await lookAtAll(sockets);
    if (n > 0) show([...now].map(([socket, look]) => ratesOf(before.get(socket), look)));
    before = now;
  }
}

async function lookAtAll(sockets: readonly string[]): Promise<Map<string, Look>> {
  const paths = sockets.length > 0 ? sockets.map((path) => path + SUFFIX) : controlSockets();
  const answers = await Promise.all(paths.map(lookAt));
  const found = answers.filter((look) => look !== undefined);
  return new Map(found.map((look) => [look.nic.socket, look]));
}

async function lookAt(path: string): Promise<Look | undefined> {
  try {
    const nic = (await askControl(path, { kind: "status" }, ANSWER_MS)) as Partial<Look["nic"]>;
    if (nic.queues === undefined || nic.socket === undefined) return undefined;
    return { at: performance.now(), nic: nic as Look["nic"] };
  } catch {
    // Gone meanwhile, somebody else's, or another program's socket of that name.
    return undefined;
  }
}

/** Sockets that listen on this machine (network namespace) and are named as control sockets are. */
export function controlSockets(table = readFileSync("/proc/net/unix", "utf8")): string[] {
  const paths = table
    .split("\n")
    .map((line) => /^\S+ \S+ \S+ 00010000 0001 \S+ +\d+ (\/.*)$/.exec(line)?.[1])
    .filter((path) => path?.endsWith(SUFFIX));
  return [...new Set(paths as string[])].sort();
}

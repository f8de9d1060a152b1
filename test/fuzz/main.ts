/**
 * `script/fuzz`: runs campaigns of random inputs against the host side, one target after the other.
 */
import { randomBytes } from "node:crypto";
import { writeFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { Campaign, type Result } from "./campaign.ts";
import { findLines, progressLine, table } from "./report.ts";
import type { Target } from "./target.ts";
import { TARGETS } from "./targets/index.ts";

const USAGE = `usage: script/fuzz [--minutes N] [--seed S] [--json FILE] [--list] [TARGET...]

Runs random inputs against the host side, target after target, each for its share of the time.
Inputs that fail are kept in test/fuzz/corpus; every script/test runs them again. Ctrl-C ends the
run with the table.

  --minutes N  for all targets together (default 5; fractions are fine)
  --seed S     the same inputs again: 0 to 4294967295 (default: a random one, which is printed)
  --json FILE  the results, as JSON
  --list       show the targets and stop
  TARGET       only these: ${TARGETS.map(({ name }) => name).join(", ")}

The exit status is 1 after a find, 2 for a wrong call, 130 after Ctrl-C.`;

const DEFAULT_MINUTES = 5;
const PROGRESS_MS = 15_000;

interface Call {
  readonly minutes: number;
  readonly seed: number;
  readonly json: string | undefined;
  readonly targets: readonly Target[];
}

function refuse(problem: string): never {
  process.stderr.write(`script/fuzz: ${problem}; see script/fuzz --help\n`);
  process.exit(2);
}

function parse(): Call {
  const options = {
    minutes: { type: "string" },
    seed: { type: "string" },
    json: { type: "string" },
    list: { type: "boolean" },
    help: { type: "boolean", short: "h" },
  } as const;
  try {
    const { values, positionals } = parseArgs({ options, allowPositionals: true });
    if (values.help) {
      process.stdout.write(`${USAGE}\n`);
      process.exit(0);
    }
    if (values.list) {
      for (const t of TARGETS) process.stdout.write(`${t.name.padEnd(10)} ${t.description}\n`);
      process.exit(0);
    }
    const { minutes, seed, json } = values;
    return { minutes: minutesOf(minutes), seed: seedOf(seed), json, targets: named(positionals) };
  } catch (error) {
    refuse((error as Error).message);
  }
}

function minutesOf(text: string | undefined): number {
  const minutes = text === undefined ? DEFAULT_MINUTES : Number(text);
  if (!(minutes > 0 && minutes <= 7 * 24 * 60)) {
    refuse(`--minutes ${text}: use more than 0 and at most a week (10080)`);
  }
  return minutes;
}

function seedOf(text: string | undefined): number {
  if (text === undefined) return randomBytes(4).readUInt32LE(0);
  const seed = Number(text);
  if (!Number.isInteger(seed) || seed < 0 || seed > 0xffffffff || text === "") {
    refuse(`--seed ${text}: use a whole number from 0 to 4294967295`);
  }
  return seed;
}

function named(names: readonly string[]): readonly Target[] {
  if (names.length === 0) return TARGETS;
  return names.map(
    (name) => TARGETS.find((t) => t.name === name) ?? refuse(`unknown target "${name}"`),
  );
}

const say = (text: string): void => void process.stdout.write(`${text}\n`);

async function run({ minutes, seed, targets }: Call, signal: AbortSignal): Promise<Result[]> {
  const results: Result[] = [];
  for (const target of targets) {
    let toldAt = performance.now();
    let finds = 0;
    const progress = (result: Result): void => {
      for (; finds < result.finds.length; finds++)
        say(findLines(target.name, result.finds[finds]!));
      if (performance.now() < toldAt + PROGRESS_MS) return;
      toldAt = performance.now();
      say(progressLine(result));
    };
    const milliseconds = (minutes * 60_000) / targets.length;
    const result = await new Campaign(target, { milliseconds, seed, signal, progress }).run();
    for (; finds < result.finds.length; finds++) say(findLines(target.name, result.finds[finds]!));
    say(progressLine(result));
    results.push(result);
    if (signal.aborted) break;
  }
  return results;
}

const call = parse();
const interrupted = new AbortController();
for (const name of ["SIGINT", "SIGTERM"] as const) process.on(name, () => interrupted.abort());
say(`seed ${call.seed}, ${call.minutes} minutes for ${call.targets.length} targets`);
const results = await run(call, interrupted.signal);
say(`\n${table(results)}\nseed ${call.seed}`);
if (call.json !== undefined) {
  const report = {
    seed: call.seed,
    minutes: call.minutes,
    interrupted: interrupted.signal.aborted,
  };
  writeFileSync(call.json, `${JSON.stringify({ ...report, results }, null, 2)}\n`);
}
const hasFound = results.some(({ finds }) => finds.length > 0);
process.exit(hasFound ? 1 : interrupted.signal.aborted ? 130 : 0);

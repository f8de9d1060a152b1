/**
 * Runs benches: script/bench, which checks the options before it prepares anything.
 *
 * Exit status: 0; 1 if a bench failed; 3 if every bench ran, but a control was not flat, so that
 * rows do not count.
 */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { buildRevision, resolveRevision } from "./harness/against.ts";
import type { Bench, Result } from "./harness/bench.ts";
import { endChildren } from "./harness/child.ts";
import { measure, type Plan } from "./harness/measure.ts";
import { record, writeBlocks } from "./harness/pages.ts";
import { loadBenches, NAMES } from "./harness/registry.ts";
import { align, caption, reasons, terminalTable } from "./harness/report.ts";

const STATUS = { ok: 0, failed: 1, usage: 2, notCounted: 3 } as const;

const { values: flags, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    list: { type: "boolean", default: false },
    quick: { type: "boolean", default: false },
    write: { type: "boolean", default: false },
    json: { type: "string" },
    rounds: { type: "string" },
    against: { type: "string" },
  },
});

function say(text: string): void {
  const [bold, plain] =
    process.stderr.isTTY && !process.env.NO_COLOR ? ["\x1b[1m", "\x1b[0m"] : ["", ""];
  process.stderr.write(`${bold}==>${plain} ${text}\n`);
}

/** What all samples write is in here, and goes with it. */
const folder = mkdtempSync(join(tmpdir(), "b."));
process.on("exit", () => rmSync(folder, { recursive: true, force: true }));
let stopping = false;
for (const [signal, status] of [
  ["SIGINT", 130],
  ["SIGTERM", 143],
  ["SIGHUP", 129],
] as const) {
  process.on(signal, () => {
    if (stopping) return;
    stopping = true;
    say("stopping: cleaning up");
    void endChildren().then(() => process.exit(status));
  });
}

/** Without names: all that need no guest. "all" adds those. */
async function wanted(): Promise<Bench[]> {
  const all = await loadBenches(NAMES);
  if (positionals.includes("all")) return all;
  if (positionals.length === 0) return all.filter(({ vm }) => !vm);
  return all.filter(({ name }) => positionals.includes(name));
}

function list(benches: readonly Bench[]): void {
  const lines = benches.map(({ name, about, vm }) => [name, vm ? "guest" : "", about]);
  for (const line of align(lines).split("\n")) console.log(line.trimEnd());
}

async function runOne(bench: Bench, plan: Plan): Promise<Result | "failed" | "skipped"> {
  const problem = await bench.problem?.();
  if (problem !== undefined) {
    console.log(`${bench.name}: skipped: ${problem}`);
    return "skipped";
  }
  try {
    return await measure(bench, plan);
  } catch (error) {
    if (!stopping) console.log(`${bench.name}: FAILED: ${(error as Error).message}`);
    return "failed";
  }
}

function show(bench: Bench, result: Result): void {
  console.log(`\n${bench.name}: ${bench.about}\n\n${terminalTable(result)}\n\n${caption(result)}`);
  for (const reason of reasons(result)) console.log(reason);
}

function otherRevision(name: string): Plan["other"] {
  const hash = resolveRevision(name);
  if (hash !== undefined) return buildRevision(hash, folder, say);
  process.stderr.write(`script/bench: --against ${name}: no such commit in this repository\n`);
  process.exit(STATUS.usage);
}

async function run(): Promise<number> {
  const benches = await wanted();
  const other = flags.against === undefined ? undefined : otherRevision(flags.against);
  const results: Result[] = [];
  let failed = false;
  for (const bench of benches) {
    const rounds = Number(flags.rounds ?? (flags.quick ? 1 : bench.rounds));
    const env = { ...process.env, TMPDIR: folder };
    const plan = { rounds, quick: flags.quick, env, say, ...(other ? { other } : {}) };
    const result = await runOne(bench, plan);
    if (stopping) return new Promise(() => {});
    failed ||= result === "failed" || (result === "skipped" && positionals.includes(bench.name));
    if (typeof result === "string") continue;
    results.push(result);
    show(bench, result);
    if (!flags.write) continue;
    record(result);
    for (const page of writeBlocks(bench, result)) say(`wrote ${page}`);
  }
  if (flags.json !== undefined) writeJson(flags.json, results);
  if (failed) return STATUS.failed;
  const counted = results.every(({ rows }) => rows.every((row) => row.counted));
  return counted ? STATUS.ok : STATUS.notCounted;
}

/** One object per bench; for a single one, the object itself. */
function writeJson(path: string, results: readonly Result[]): void {
  const content = results.length === 1 ? results[0] : results;
  writeFileSync(path, `${JSON.stringify(content, null, 2)}\n`);
}

if (flags.list) list(await loadBenches(NAMES));
else process.exitCode = await run();

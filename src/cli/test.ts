/** `bpfhv test`: the ring suite, on a ring format of this package or of a module. */
import { createContext, Script } from "node:vm";
import { Command } from "commander";
import { failure, whole } from "../errors.ts";
import type { SuiteCase } from "../suite/index.ts";
import { DEVICE_WORDS, loadDevice, requireSize } from "./device-option.ts";

interface TestFlags {
  bufs: number[];
  runs: number;
  checkTimeout: number;
  only?: string;
  json: boolean;
}

/** The smallest, the usual and the largest ring. */
const SIZES = [16, 256, 8192];
const RUNS = 25;
const TIMEOUT_S = 60;

interface Result {
  readonly name: string;
  readonly group: string;
  readonly form: string;
  readonly ms: number;
  /** Why it failed; null: it passed. */
  readonly error: string | null;
}

const bufs = whole("--bufs", 16, 8192);
const runs = whole("--runs", 1, 1_000_000);
const checkTimeout = whole("--check-timeout", 1, 86_400);

export function testCommand(): Command {
  return new Command("test")
    .description("check a ring format: programs, packets, wake-ups, restarts, hostile guests")
    .argument("<device>", DEVICE_WORDS)
    .option("--bufs <n>", "ring size; may be repeated (default: 16, 256 and 8192)", addSize, [])
    .option("--runs <n>", "runs of each random check", runs, RUNS)
    .option("--check-timeout <s>", "longest time of one check, in seconds", checkTimeout, TIMEOUT_S)
    .option("--only <text>", "checks whose group or name contains this")
    .option("--json", "results as JSON", false)
    .addHelpText("after", "\nThe exit status is 1 if a check fails.")
    .action(async (device: string, flags: TestFlags) => {
      const failed = (await run(device, flags)).filter(({ error }) => error !== null);
      if (failed.length === 0) return;
      throw failure(`${failed.length} checks failed, the first: ${failed[0].name}`);
    });
}

const addSize = (text: string, before: number[]): number[] => [...before, bufs(text)];

async function run(device: string, flags: TestFlags): Promise<Result[]> {
  const [{ format }, { suiteOf }] = await Promise.all([
    loadDevice(device),
    import("../suite/index.ts"),
  ]);
  const sizes = flags.bufs.length > 0 ? flags.bufs : SIZES;
  for (const size of sizes) requireSize(format, size);
  const { only = "" } = flags;
  const cases = suiteOf(format, { sizes, runs: flags.runs }).filter(
    ({ group, name }) => group.includes(only) || name.includes(only),
  );
  if (cases.length === 0) throw failure(`--only ${only}: no check has this in its name`);
  const results: Result[] = [];
  for (const each of cases) {
    const result = runOne(each, flags.checkTimeout);
    results.push(result);
    if (!flags.json) process.stdout.write(describe(result));
  }
  const failed = results.filter(({ error }) => error !== null).length;
  const passed = results.length - failed;
  const summary = { device: format.name, passed, failed, results };
  process.stdout.write(
    flags.json
      ? `${JSON.stringify(summary, null, 2)}\n`
      : `${format.name}: ${passed} passed, ${failed} failed\n`,
  );
  return results;
}

const CALL = new Script("check()");

/** An endless loop in a ring format's code ends at the time limit, and the next check runs. */
function runOne({ name, group, form, run: check }: SuiteCase, seconds: number): Result {
  const started = performance.now();
  let error: string | null = null;
  try {
    CALL.runInContext(createContext({ check }), { timeout: seconds * 1000 });
  } catch (thrown) {
    const { code } = (thrown ?? {}) as { code?: unknown };
    error = thrown instanceof Error ? thrown.message : String(thrown);
    if (code === "ERR_SCRIPT_EXECUTION_TIMEOUT") {
      error = `did not end within ${seconds} s (--check-timeout)`;
    }
  }
  return { name, group, form, ms: Math.round(performance.now() - started), error };
}

function describe({ name, group, form, ms, error }: Result): string {
  const line = `${error === null ? "ok  " : "FAIL"} ${form} ${group}: ${name} (${ms} ms)\n`;
  return error === null ? line : `${line}${error.trimEnd().replace(/^/gm, "     ")}\n`;
}

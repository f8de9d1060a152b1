/** Fresh processes that measure, each in a process group that ends with the bench. */
import { type ChildProcess, spawn } from "node:child_process";
import type { Sample } from "./bench.ts";

/** Clean-up of a sample that was interrupted: namespaces, TAPs, guests. */
const GRACE_MS = 10_000;

const running = new Set<ChildProcess>();

function signalGroup(child: ChildProcess, signal: NodeJS.Signals): void {
  try {
    process.kill(-child.pid!, signal);
  } catch {
    // The group has ended.
  }
}

/** Ends what is running, and waits for it. */
export async function endChildren(): Promise<void> {
  await Promise.all(
    [...running].map(async (child) => {
      const ended = new Promise((resolve) => child.once("close", resolve));
      signalGroup(child, "SIGTERM");
      const timer = setTimeout(() => signalGroup(child, "SIGKILL"), GRACE_MS);
      await ended;
      clearTimeout(timer);
    }),
  );
}

export interface Order {
  /** Compiled tree that holds the bench. */
  readonly root: string;
  readonly words: readonly string[];
  readonly seconds: number;
  readonly env: NodeJS.ProcessEnv;
}

/** @returns what the process printed as its last line */
export function runSample({ root, words, seconds, env }: Order): Promise<Sample> {
  const child = spawn(process.execPath, [`${root}/dist/bench/sample.js`, ...words], {
    detached: true,
    cwd: root,
    env,
    stdio: ["ignore", "pipe", "pipe"],
  });
  running.add(child);
  let [output, errors, late] = ["", "", false];
  child.stdout.on("data", (chunk) => {
    output += chunk;
  });
  child.stderr.on("data", (chunk) => {
    errors += chunk;
  });
  const timer = setTimeout(() => {
    late = true;
    signalGroup(child, "SIGTERM");
    setTimeout(() => signalGroup(child, "SIGKILL"), GRACE_MS).unref();
  }, 1000 * seconds);
  return new Promise((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (status, signal) => {
      clearTimeout(timer);
      running.delete(child);
      // A server that it left behind would disturb the next sample.
      signalGroup(child, "SIGKILL");
      const name = words.slice(0, 2).join(" ");
      if (late) reject(new Error(`${name}: not done within ${seconds} s`));
      else if (status !== 0) reject(new Error(`${name}: ${reasonOf(errors, status ?? signal)}`));
      else resolve(JSON.parse(output.trimEnd().split("\n").at(-1)!) as Sample);
    });
  });
}

function reasonOf(errors: string, end: number | string | null): string {
  const lines = errors.split("\n").filter((line) => line.trim() !== "");
  const said = lines.find((line) => /Error\b.*:/.test(line)) ?? lines.at(-1);
  return said === undefined ? `ended with ${end}` : said.trim();
}

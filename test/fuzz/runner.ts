/**
 * The process that runs one target, case after case, until its time is over. It
 * writes each case's number to a file first, so that its parent can generate the
 * input again even if this process dies or hangs.
 *
 *     node runner.js TARGET SEED FIRST MILLISECONDS FILE   cases of a campaign, from number FIRST
 *     node runner.js TARGET replay FILE                    an entry of the corpus
 */
import { openSync, writeSync } from "node:fs";
import { readEntry } from "./corpus.ts";
import { caseRandom, type Input, type Resources, type Session } from "./target.ts";
import { findTarget } from "./targets/index.ts";

/** Messages of the process to its parent. */
export type RunnerMessage =
  | { readonly kind: "progress"; readonly progress: Progress }
  | { readonly kind: "find"; readonly error: string; readonly during: "case" | "check" };

export interface Progress {
  /** The next case. */
  readonly next: number;
  readonly cases: number;
  readonly units: number;
  readonly checks: number;
  readonly resources: Resources | null;
}

const CHECK_EVERY_MS = 500;

function tell(message: RunnerMessage): Promise<void> {
  return new Promise((resolve) => {
    if (process.send === undefined) resolve();
    else process.send(message, () => resolve());
  });
}

class Run {
  readonly #session: Session<Input>;
  #progress: Progress;

  constructor(session: Session<Input>, first: number) {
    this.#session = session;
    this.#progress = { next: first, cases: 0, units: 0, checks: 0, resources: null };
  }

  count(units: number): void {
    const { next, cases, ...rest } = this.#progress;
    this.#progress = { ...rest, next: next + 1, cases: cases + 1, units: rest.units + units };
  }

  async check(): Promise<void> {
    await this.#session.check?.();
    const resources = this.#session.resources?.() ?? null;
    this.#progress = { ...this.#progress, checks: this.#progress.checks + 1, resources };
    await tell({ kind: "progress", progress: this.#progress });
  }

  get next(): number {
    return this.#progress.next;
  }
}

const textOf = (error: unknown): string =>
  error instanceof Error && error.name !== "Find"
    ? (error.stack ?? error.message)
    : String((error as Error).message ?? error);

async function campaign(name: string, numbers: readonly number[], file: string): Promise<boolean> {
  const target = findTarget(name)!;
  const [seed, first, milliseconds] = numbers as [number, number, number];
  const place = openSync(file, "w");
  const record = new Uint32Array(1);
  const session = await target.open();
  const run = new Run(session, first);
  let during: "case" | "check" = "check";
  try {
    const end = performance.now() + milliseconds;
    for (let checkAt = 0; ; ) {
      const now = performance.now();
      if (now >= checkAt || now >= end) {
        during = "check";
        await run.check();
        if (now >= end) return true;
        checkAt = performance.now() + CHECK_EVERY_MS;
      }
      during = "case";
      record[0] = run.next;
      writeSync(place, record, 0, 4, 0);
      run.count(await session.run(target.generate(caseRandom(seed, run.next))));
    }
  } catch (error) {
    await tell({ kind: "find", error: textOf(error), during });
    return false;
  } finally {
    await session.close();
  }
}

async function replay(name: string, file: string): Promise<boolean> {
  const session = await findTarget(name)!.open();
  try {
    for (const input of readEntry(file).inputs) await session.run(input);
    await session.check?.();
    return true;
  } catch (error) {
    await tell({ kind: "find", error: textOf(error), during: "case" });
    return false;
  } finally {
    await session.close();
  }
}

// Ctrl-C reaches the parent, too, which ends this process.
process.on("SIGINT", () => {});
const [name, how, ...rest] = process.argv.slice(2) as [string, string, ...string[]];
const isGood =
  how === "replay"
    ? await replay(name, rest[0]!)
    : await campaign(name, [how, ...rest].slice(0, 3).map(Number), rest[2]!);
process.exit(isGood ? 0 : 1);

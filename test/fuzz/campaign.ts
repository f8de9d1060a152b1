/**
 * Runs one target in a process of its own, watches that it gets
 * on, and starts it anew after a find.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { atMostNow } from "../support/os.ts";
import { CORPUS, keep } from "./corpus.ts";
import type { Progress, RunnerMessage } from "./runner.ts";
import { CASE_MS, caseRandom, type Input, type Resources, type Target } from "./target.ts";

const RUNNER = fileURLToPath(new URL("./runner.js", import.meta.url));
/** The same fault is found again and again: after so many finds the target is given up. */
const MAX_FINDS = 10;
/** For a server to start and stop on a loaded machine. */
const START_MS = 40_000;

export interface Finding {
  readonly case: number;
  readonly during: "case" | "check" | "hang" | "crash";
  readonly error: string;
  /** The inputs that may have caused it, kept; null if they are not. */
  readonly file: string | null;
}

export interface Result {
  readonly target: string;
  readonly seed: number;
  readonly seconds: number;
  readonly cases: number;
  readonly units: number;
  readonly unit: string;
  readonly checks: number;
  /** At the first and at the last check. */
  readonly resources: readonly [Resources, Resources] | null;
  readonly finds: readonly Finding[];
}

export interface CampaignOptions {
  readonly milliseconds: number;
  readonly seed: number;
  /** Ends the campaign early. */
  readonly signal?: AbortSignal;
  readonly progress?: (result: Result) => void;
  /** Where failing inputs are written; default: to the corpus in the tree. */
  readonly corpus?: string;
  /** Without a word for so long, the process hangs. */
  readonly caseMs?: number;
}

export class Campaign {
  readonly #target: Target;
  readonly #options: CampaignOptions;
  readonly #folder = mkdtempSync(join(tmpdir(), "bpfhv-fuzz-run-"));
  readonly #place = join(this.#folder, "case");
  readonly #start = performance.now();
  readonly #finds: Finding[] = [];
  #done = { cases: 0, units: 0, checks: 0 };
  #now: Progress | null = null;
  #resources: [Resources, Resources] | null = null;
  #next = 0;

  constructor(target: Target, options: CampaignOptions) {
    this.#target = target;
    this.#options = options;
  }

  async run(): Promise<Result> {
    const end = this.#start + this.#options.milliseconds;
    try {
      do {
        await this.#process(end - performance.now());
      } while (!this.#isOver(end));
    } finally {
      rmSync(this.#folder, { recursive: true, force: true });
    }
    return this.#result();
  }

  #isOver(end: number): boolean {
    const isAborted = this.#options.signal?.aborted ?? false;
    return isAborted || this.#finds.length >= MAX_FINDS || performance.now() >= end - 500;
  }

  /** One process, until its time is over or it finds something. */
  async #process(milliseconds: number): Promise<void> {
    const { seed, signal } = this.#options;
    const words = [this.#target.name, seed, this.#next, Math.round(milliseconds), this.#place];
    // A group of its own: whatever the target starts ends with it.
    const child = spawn(
      process.execPath,
      ["--expose-gc", "--enable-source-maps", RUNNER, ...words.map(String)],
      {
        stdio: ["ignore", "ignore", "pipe", "ipc"],
        detached: true,
        // Killed if it hangs: its files go with our folder.
        env: { ...process.env, TMPDIR: this.#folder },
      },
    );
    const abort = (): void => endGroup(child);
    signal?.addEventListener("abort", abort);
    try {
      await this.#watch(child);
    } finally {
      signal?.removeEventListener("abort", abort);
      endGroup(child);
    }
    this.#settle();
  }

  async #watch(child: ChildProcess): Promise<void> {
    let found: Finding | null = null;
    let stderr = "";
    const { signal, caseMs = CASE_MS } = this.#options;
    let heardAt = performance.now() + START_MS;
    let isHung = false;
    child.stderr!.on("data", (chunk) => {
      stderr = `${stderr}${chunk}`.slice(-4000);
    });
    child.on("message", (message: RunnerMessage) => {
      heardAt = performance.now();
      if (message.kind === "progress") this.#take(message.progress);
      else found = this.#finding(message.during, message.error);
    });
    const timer = setInterval(() => {
      // At the lowest priority a case was seen to wait for a CPU for 20 s.
      if (performance.now() < heardAt + atMostNow(caseMs)) return;
      isHung = true;
      endGroup(child);
    }, 500);
    const [status, by] = await ended(child);
    clearInterval(timer);
    if (found === null && !signal?.aborted) {
      if (isHung) found = this.#finding("hang", `no case ended within ${caseMs / 1000} s or more`);
      else if (status !== 0)
        found = this.#finding("crash", `${by ?? `status ${status}`} ${stderr}`);
    }
    if (found !== null) this.#finds.push(found);
  }

  #finding(during: Finding["during"], error: string): Finding {
    const number = this.#currentCase();
    const { seed } = this.#options;
    // A check judges all cases since the one before.
    const checked = this.#now?.next ?? this.#next;
    const first = during === "check" ? checked : number - (this.#target.lag ?? 0);
    const inputs: Input[] = [];
    for (let n = Math.max(this.#next, first); n <= number; n++) {
      inputs.push(this.#target.generate(caseRandom(seed, n)));
    }
    this.#next = number + 1;
    const entry = { target: this.#target.name, seed, case: number, error, inputs };
    const { corpus = CORPUS } = this.#options;
    return { case: number, during, error, file: inputs.length > 0 ? keep(entry, corpus) : null };
  }

  #currentCase(): number {
    try {
      const bytes = readFileSync(this.#place);
      return bytes.length === 4 ? bytes.readUInt32LE(0) : this.#next;
    } catch {
      return this.#next;
    }
  }

  #take(progress: Progress): void {
    this.#now = progress;
    if (progress.resources !== null) {
      this.#resources = [this.#resources?.[0] ?? progress.resources, progress.resources];
    }
    this.#options.progress?.(this.#result());
  }

  /** What a process did is added when it has ended. */
  #settle(): void {
    const { cases, units, checks } = this.#sums();
    this.#done = { cases, units, checks };
    this.#next = Math.max(this.#next, this.#now?.next ?? 0);
    this.#now = null;
  }

  #sums(): { cases: number; units: number; checks: number } {
    const { cases = 0, units = 0, checks = 0 } = this.#now ?? {};
    const done = this.#done;
    return { cases: done.cases + cases, units: done.units + units, checks: done.checks + checks };
  }

  #result(): Result {
    return {
      ...{ target: this.#target.name, seed: this.#options.seed, unit: this.#target.unit },
      seconds: (performance.now() - this.#start) / 1000,
      ...this.#sums(),
      ...{ resources: this.#resources, finds: [...this.#finds] },
    };
  }
}

function ended(child: ChildProcess): Promise<[number | null, string | null]> {
  return new Promise((resolve) => {
    child.once("error", () => resolve([1, null]));
    child.once("close", (status, signal) => resolve([status, signal]));
  });
}

/** Ends the process and all that it started. */
function endGroup(child: ChildProcess): void {
  if (child.pid === undefined) return;
  try {
    process.kill(-child.pid, "SIGKILL");
  } catch {
    // It has ended already.
  }
}

/** Runs an entry of the corpus. @returns why it fails, or null */
export async function replay(target: string, file: string): Promise<string | null> {
  const child = spawn(
    process.execPath,
    ["--expose-gc", "--enable-source-maps", RUNNER, target, "replay", file],
    { stdio: ["ignore", "ignore", "pipe", "ipc"], detached: true },
  );
  let text = "";
  child.stderr!.on("data", (chunk) => {
    text += chunk;
  });
  child.on("message", (message: RunnerMessage) => {
    if (message.kind === "find") text = message.error;
  });
  const timer = setTimeout(() => endGroup(child), START_MS + CASE_MS);
  const [status, signal] = await ended(child);
  clearTimeout(timer);
  endGroup(child);
  return status === 0 ? null : `${signal ?? `status ${status}`}: ${text}`;
}

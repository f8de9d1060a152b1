/** Runs one target in a separate process, detects a hang, and restarts it after a finding. */
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
/** A fault is found repeatedly: after this many findings the campaign stops. */
const MAX_FINDS = 10;
/** Time for a server to start and stop on a loaded machine. */
const START_MS = 40_000;

export interface Finding {
  readonly case: number;
  readonly during: "case" | "check" | "hang" | "crash";
  readonly error: string;
  /** File with the inputs that may have caused it; null if they are not kept. */
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
  /** Resources at the first and the last check. */
  readonly resources: readonly [Resources, Resources] | null;
  readonly finds: readonly Finding[];
}

export interface CampaignOptions {
  readonly milliseconds: number;
  readonly seed: number;
  /** Ends the campaign early. */
  readonly signal?: AbortSignal;
  readonly progress?: (result: Result) => void;
  /** Folder of failing inputs; default: the corpus in the tree. */
  readonly corpus?: string;
  /** A process that reports nothing for this long hangs. */
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

  /** Runs one process until its time is over or it has a finding. */
  async #process(milliseconds: number): Promise<void> {
    const { seed, signal } = this.#options;
    const words = [this.#target.name, seed, this.#next, Math.round(milliseconds), this.#place];
    // A process group: everything that the target starts ends with it.
    const child = spawn(
      process.execPath,
      ["--expose-gc", "--enable-source-maps", RUNNER, ...words.map(String)],
      {
        stdio: ["ignore", "ignore", "pipe", "ipc"],
        detached: true,
        // It is killed if it hangs, and its files are removed with this folder.
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
      // At the lowest priority a case was seen to wait 20 s for a CPU.
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
    // A check covers all cases since the previous one.
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

  /** Adds the statistics of a process that has ended. */
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

/** Runs an entry of the corpus. @returns its error, or null */
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

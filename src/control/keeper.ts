/**
 * Starts a service, holds the descriptors that it gives, and starts it again with them when it
 * ends: the part of a service manager that a NIC needs to survive a crash of its server, for
 * machines without systemd. The service sees the same as with systemd: NOTIFY_SOCKET, FDSTORE,
 * LISTEN_FDS, LISTEN_FDNAMES, LISTEN_PID.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { Worker } from "node:worker_threads";
import { createEventFd, signalEventFd } from "../os/eventfd.ts";
import { FdStore, MAX_STORED } from "./fd-store.ts";
import type { FromNoticeWorker, NoticeTask } from "./notice-worker.ts";

/** A service that ends so soon after it was ready has failed. */
const SHORT_MS = 500;
const FIRST_DELAY_MS = 100;
const LONGEST_DELAY_MS = 10_000;
/** Exit statuses that another start would not change: a wrong command line, no such program. */
const HOPELESS: ReadonlySet<number> = new Set([2, 126, 127]);

export interface KeeperOptions {
  /** Program and words. */
  readonly command: readonly [string, ...string[]];
  /** Failures in a row after which it gives up. */
  readonly failures: number;
  readonly log: (level: "info" | "warn", text: string) => void;
}

/** How the service has ended. */
interface End {
  readonly status: number | null;
  readonly signal: NodeJS.Signals | null;
  /** Milliseconds for which it was ready; negative: it never was. */
  readonly readyMs: number;
}

export class Keeper {
  readonly #options: KeeperOptions;
  readonly #folder = mkdtempSync(join(tmpdir(), "bpfhv-keep-"));
  readonly #store: FdStore;
  readonly #flushFd = createEventFd();
  readonly #worker: Worker;
  #flushed: () => void = () => {};
  #child: ChildProcess | null = null;
  #readyAt = 0;
  #isStopping = false;
  readonly #wake: AbortController = new AbortController();

  constructor(options: KeeperOptions) {
    this.#options = options;
    this.#store = new FdStore((text) => options.log("warn", text));
    const task: NoticeTask = { path: this.#path, flushFd: this.#flushFd };
    this.#worker = new Worker(new URL("./notice-worker.js", import.meta.url), {
      workerData: task,
      resourceLimits: { maxYoungGenerationSizeMb: 3, maxOldGenerationSizeMb: 64 },
    });
  }

  get #path(): string {
    return join(this.#folder, "notify");
  }

  /** Runs until the service ends for good. @returns the exit status. @throws Error */
  async run(): Promise<number> {
    await this.#listening();
    let failures = 0;
    for (;;) {
      const end = await this.#serve();
      await this.#flush();
      const { status, signal, readyMs } = end;
      if (this.#isStopping || HOPELESS.has(status ?? -1)) return statusOf(end);
      // It has handed its NICs over, or they have ended.
      if (status === 0 && this.#store.size === 0) return 0;
      failures = readyMs >= SHORT_MS ? 0 : failures + 1;
      const how = signal ?? `status ${status}`;
      if (failures >= this.#options.failures) {
        const why = `${failures} times in a row: it is not started again`;
        this.#options.log("warn", `the service has ended (${how}), ${why}`);
        return statusOf(end) || 1;
      }
      await this.#delay(failures, how);
      if (this.#isStopping) return statusOf(end);
    }
  }

  async #delay(failures: number, how: string): Promise<void> {
    const ms = failures < 2 ? 0 : Math.min(FIRST_DELAY_MS * 2 ** (failures - 2), LONGEST_DELAY_MS);
    const when = ms === 0 ? "" : ` in ${ms / 1000} s`;
    const what = `the service has ended (${how}): started again${when}`;
    this.#options.log("warn", `${what}, with ${this.#store.size} descriptors`);
    if (ms > 0) await sleep(ms, undefined, { signal: this.#wake.signal }).catch(() => {});
  }

  #listening(): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#worker.on("error", reject);
      this.#worker.on("message", (message: FromNoticeWorker) => {
        if (message.kind === "listening") resolve();
        else if (message.kind === "flushed") this.#flushed();
        else if (message.kind === "refused") this.#options.log("warn", message.why);
        else if (message.kind === "notice") {
          if (this.#store.take(message.text, message.fds).ready) this.#readyAt = now();
        }
      });
    });
  }

  /** Waits until everything that the service has sent is here. */
  #flush(): Promise<void> {
    return new Promise((resolve) => {
      this.#flushed = resolve;
      signalEventFd(this.#flushFd);
    });
  }

  #serve(): Promise<End> {
    const [program, ...words] = this.#options.command;
    const stored = [...this.#store.stored];
    const env: NodeJS.ProcessEnv = {
      ...process.env,
      ...{ NOTIFY_SOCKET: this.#path, FDSTORE: `${MAX_STORED}` },
    };
    // The service ends with this process, not with npm's shell.
    delete env.npm_lifecycle_event;
    let line: [string, string[]] = [program, words];
    if (stored.length > 0) {
      env.LISTEN_FDS = `${stored.length}`;
      env.LISTEN_FDNAMES = stored.map(([name]) => name).join(":");
      // Only the process itself knows its number before it runs.
      const script = 'export LISTEN_PID=$$; exec "$@"';
      line = ["/bin/sh", ["-c", script, "sh", program, ...words]];
    }
    const fds = stored.map(([, fd]) => fd);
    this.#readyAt = 0;
    const child = spawn(...line, { env, stdio: ["inherit", "inherit", "inherit", ...fds] });
    this.#child = child;
    return new Promise((resolve, reject) => {
      child.once("error", reject);
      child.once("exit", (status, signal) => {
        this.#child = null;
        const readyMs = this.#readyAt === 0 ? -1 : now() - this.#readyAt;
        resolve({ status, signal, readyMs });
      });
    });
  }

  /** Ends the service for good. */
  stop(): void {
    this.#isStopping = true;
    this.#wake.abort();
    this.#child?.kill("SIGINT");
  }

  /** Call it once, at the end. */
  close(): void {
    this.#child?.kill("SIGKILL");
    this.#store.close();
    this.#worker.unref();
    rmSync(this.#folder, { recursive: true, force: true });
  }
}

const now = (): number => performance.now();

function statusOf({ status }: End): number {
  return status ?? 1;
}

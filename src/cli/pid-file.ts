/**
 * A file with the process id: whoever takes it replaces the process that it names, and waits for
 * its end.
 */
import { readFileSync, writeFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { failure } from "../errors.ts";
import { removeIfAllowed } from "./privileges.ts";

/** An orderly stop drains a queue and takes down an interface. */
const STOP_MS = 10_000;
const LOOK_EVERY_MS = 20;

export class PidFile {
  readonly #path: string;

  private constructor(path: string) {
    this.#path = path;
  }

  /**
   * Ends the backend that the file names, if one runs, and writes our own id there (decimal, no
   * newline).
   * @throws CommandError if it does not end, or the file cannot be written
   */
  static async take(path: string): Promise<PidFile> {
    const pid = runningBackend(path);
    if (pid !== null) await replace(pid, path);
    try {
      writeFileSync(path, `${process.pid}`);
    } catch (error) {
      throw failure(`cannot write the pid file: ${(error as Error).message}`);
    }
    return new PidFile(path);
  }

  /** Unless another process has taken it over. */
  remove(): void {
    if (read(this.#path) === process.pid) removeIfAllowed(this.#path);
  }
}

function read(path: string): number | null {
  try {
    const text = readFileSync(path, "utf8").trim();
    return /^[1-9]\d{0,9}$/.test(text) ? Number(text) : null;
  } catch {
    return null;
  }
}

/** The process that the file names, if it is a backend: ids are used again. */
function runningBackend(path: string): number | null {
  const pid = read(path);
  return pid !== null && pid !== process.pid && isBackend(pid) ? pid : null;
}

function isBackend(pid: number): boolean {
  try {
    const words = readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0");
    // Ours, or the original's program, whose name is `backend`.
    return words.some((word) => /(^|\/)backend$/.test(word));
  } catch {
    return false;
  }
}

async function replace(pid: number, path: string): Promise<void> {
  try {
    process.kill(pid, "SIGTERM");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ESRCH") return;
    throw failure(`cannot stop process ${pid} of ${path}: ${(error as Error).message}`);
  }
  for (const end = performance.now() + STOP_MS; isBackend(pid); await sleep(LOOK_EVERY_MS)) {
    if (performance.now() > end) {
      throw failure(`process ${pid} of ${path} does not stop: end it yourself (kill ${pid})`);
    }
  }
}

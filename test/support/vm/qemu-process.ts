/**
 * The QEMU process of a test: its console, its errors, its
 * exit. It ends with this process in any case.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { DeadlineError, sleep } from "./time.ts";

export interface QemuExit {
  readonly code: number | null;
  /** SIGABRT and the like, unless `killed`. */
  readonly signal: NodeJS.Signals | null;
  /** Killed by this class. */
  readonly killed: boolean;
  /** QEMU ended by a signal of its own: a bug in it, or in its device's server. */
  readonly aborted: boolean;
  /** QEMU's standard error. */
  readonly stderr: string;
}

export class QemuProcess {
  readonly exit: Promise<QemuExit>;
  readonly #child: ChildProcess;
  #serial = "";
  #stderr = "";
  #killed = false;
  #ended = false;

  /** `fds` become descriptors 3, 4, … of QEMU. The caller closes its own copies. */
  constructor(command: readonly string[], fds: readonly number[]) {
    const child = spawn("setpriv", ["--pdeathsig", "KILL", ...command], {
      stdio: ["ignore", "pipe", "pipe", ...fds],
    });
    this.#child = child;
    child.stdout!.on("data", (chunk: Buffer) => {
      this.#serial += chunk.toString("latin1");
    });
    child.stderr!.on("data", (chunk: Buffer) => {
      this.#stderr += chunk.toString("utf8");
    });
    this.exit = new Promise((resolve) => {
      child.once("error", (error) => {
        this.#stderr += error.message;
        resolve(this.#result(127, null));
      });
      child.once("close", (code, signal) => resolve(this.#result(code, signal)));
    });
  }

  get pid(): number {
    return this.#child.pid ?? -1;
  }

  get ended(): boolean {
    return this.#ended;
  }

  get serial(): string {
    return this.#serial;
  }

  get stderr(): string {
    return this.#stderr;
  }

  /** Waits for text on the console, from position `from` on. */
  async waitForSerial(pattern: RegExp, timeoutMs: number, from = 0): Promise<RegExpExecArray> {
    const end = performance.now() + timeoutMs;
    for (;;) {
      const match = pattern.exec(this.#serial.slice(from));
      if (match !== null) return match;
      if (this.#ended) throw new Error(`QEMU ended before ${pattern}: ${this.#stderr}`);
      if (performance.now() > end) {
        const tail = this.#serial.slice(-500);
        throw new DeadlineError(`not within ${timeoutMs} ms: ${pattern} on the console: ${tail}`);
      }
      await sleep(25);
    }
  }

  kill(signal: NodeJS.Signals = "SIGKILL"): void {
    if (this.#ended) return;
    this.#killed = true;
    this.#child.kill(signal);
  }

  #result(code: number | null, signal: NodeJS.Signals | null): QemuExit {
    this.#ended = true;
    const aborted = signal !== null && !this.#killed;
    return { code, signal, killed: this.#killed, aborted, stderr: this.#stderr };
  }
}

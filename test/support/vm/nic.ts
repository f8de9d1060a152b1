/** `bpfhv serve` as a child process, for tests and the demo: start, query, stop. */
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { statusOf } from "../../../src/control/client.ts";
import type { NicStatus } from "../../../src/nic/status.ts";
import { onExit } from "./cleanup.ts";
import { until, within } from "./time.ts";

const MAIN = fileURLToPath(new URL("../../../src/cli/main.js", import.meta.url));
const START_MS = 10_000;
const STOP_MS = 10_000;

export interface ServedExit {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

/** A running `bpfhv serve`. */
export class ServedNic {
  readonly socket: string;
  readonly exit: Promise<ServedExit>;
  readonly #child: ChildProcess;
  readonly #folder: string;
  readonly #forget: () => void;
  #log = "";

  private constructor(folder: string, args: readonly string[], before: readonly string[]) {
    this.#folder = folder;
    this.socket = join(folder, "nic.sock");
    const words = [MAIN, ...before, "serve", "--socket", this.socket, ...args];
    this.#child = spawn(process.execPath, words, { stdio: ["ignore", "ignore", "pipe"] });
    this.#child.stderr?.on("data", (chunk) => {
      this.#log += chunk;
    });
    this.exit = new Promise((resolve) => {
      this.#child.once("exit", (code, signal) => resolve({ code, signal }));
    });
    this.#forget = onExit(() => {
      this.#child.kill("SIGKILL");
      rmSync(folder, { recursive: true, force: true });
    });
  }

  /** Starts one and waits for its reply. `args` are those of `bpfhv serve`, without `--socket`. */
  static start(...args: readonly string[]): Promise<ServedNic> {
    return ServedNic.#start(args, []);
  }

  /** Under a keeper, which `pid` is then. */
  static startKept(...args: readonly string[]): Promise<ServedNic> {
    return ServedNic.#start(args, ["keep", "--"]);
  }

  static async #start(args: readonly string[], before: readonly string[]): Promise<ServedNic> {
    const nic = new ServedNic(mkdtempSync(join(tmpdir(), "bpfhv-nic-")), args, before);
    const died = nic.exit.then(({ code }) => {
      throw new Error(`bpfhv serve ended with ${code}: ${nic.log}`);
    });
    const answers = until(START_MS, "bpfhv serve to answer", () =>
      nic.status().then(
        () => true,
        () => false,
      ),
    );
    try {
      await Promise.race([answers, died]);
      return nic;
    } catch (error) {
      await nic.kill();
      throw error;
    }
  }

  get pid(): number {
    return this.#child.pid as number;
  }

  /** Returns its log. */
  get log(): string {
    return this.#log;
  }

  async status(): Promise<NicStatus> {
    return (await statusOf(this.socket)) as NicStatus;
  }

  get openDescriptors(): number {
    return readdirSync(`/proc/${this.pid}/fd`).length;
  }

  /** Resident memory in KiB. */
  get residentKiB(): number {
    return Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${this.pid}/status`, "utf8"))?.[1]);
  }

  /** Memory of its own in KiB, without what it shares with guests. */
  get anonymousKiB(): number {
    return Number(/RssAnon:\s+(\d+)/.exec(readFileSync(`/proc/${this.pid}/status`, "utf8"))?.[1]);
  }

  /**
   * Bytes of guests' memory that it has mapped. The number of
   * mappings says little: adjacent ones merge.
   */
  get guestBytesMapped(): number {
    const maps = readFileSync(`/proc/${this.pid}/maps`, "utf8").split("\n");
    const ends = maps
      .filter((line) => line.includes("/memfd:memory-backend"))
      .map((line) =>
        line
          .split(" ")[0]
          .split("-")
          .map((hex) => Number.parseInt(hex, 16)),
      );
    return ends.reduce((sum, [start, end]) => sum + end - start, 0);
  }

  /** CPU time used so far, in ticks of 10 ms. */
  get cpuTicks(): number {
    const fields = readFileSync(`/proc/${this.pid}/stat`, "utf8").split(") ")[1].split(" ");
    return Number(fields[11]) + Number(fields[12]);
  }

  /** Stops it as Ctrl-C does. */
  async stop(signal: NodeJS.Signals = "SIGTERM"): Promise<ServedExit> {
    this.#child.kill(signal);
    const exit = await within(STOP_MS, "bpfhv serve to stop", this.exit);
    this.#release();
    return exit;
  }

  async kill(): Promise<void> {
    this.#child.kill("SIGKILL");
    await within(STOP_MS, "bpfhv serve to die", this.exit);
    this.#release();
  }

  #release(): void {
    this.#forget();
    rmSync(this.#folder, { recursive: true, force: true });
  }
}

/** A misbehaving host as tests use it: start, set a mode, count its lies, stop. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { Worker } from "node:worker_threads";
import type { PortSpec } from "../../../../src/net/create.ts";
import { onExit } from "../cleanup.ts";
import { within } from "../time.ts";
import { MODE, MODES, type Mode, SHARED_BYTES, STOP, TOLD } from "./modes.ts";
import type { LiarWorkerData } from "./worker.ts";

const WORKER = fileURLToPath(new URL("./worker.js", import.meta.url));
const START_MS = 10_000;
const STOP_MS = 10_000;

export class LyingNic {
  readonly socket: string;
  readonly #worker: Worker;
  readonly #words: Int32Array;
  readonly #ended: Promise<void>;
  readonly #release: () => void;

  private constructor(port: PortSpec, seed: number, device: string, pairs: number) {
    const folder = mkdtempSync(join(tmpdir(), "bpfhv-liar-"));
    const remove = () => rmSync(folder, { recursive: true, force: true });
    const forget = onExit(remove);
    this.#release = () => {
      forget();
      remove();
    };
    this.socket = join(folder, "nic.sock");
    const shared = new SharedArrayBuffer(SHARED_BYTES);
    this.#words = new Int32Array(shared);
    const data: LiarWorkerData = { socketPath: this.socket, port, seed, device, pairs, shared };
    this.#worker = new Worker(WORKER, { workerData: data });
    this.#ended = new Promise((resolve, reject) => {
      this.#worker.once("error", reject);
      this.#worker.once("exit", () => resolve());
    });
  }

  static async start(
    port: PortSpec,
    seed: number,
    { device = "sring", pairs = 1 } = {},
  ): Promise<LyingNic> {
    const nic = new LyingNic(port, seed, device, pairs);
    const ready = new Promise((resolve) => nic.#worker.once("message", resolve));
    const died = nic.#ended.then(() => Promise.reject<never>(new Error("the lying host ended")));
    await within(START_MS, "the lying host", Promise.race([ready, died]));
    return nic;
  }

  set mode(mode: Mode) {
    Atomics.store(this.#words, MODE, MODES.indexOf(mode));
  }

  /** Number of lies of that mode so far. */
  told(mode: Mode): number {
    return Atomics.load(this.#words, TOLD + MODES.indexOf(mode));
  }

  get toldInAll(): number {
    return MODES.reduce((sum, mode) => sum + this.told(mode), 0);
  }

  /** Rejects if the host's thread failed. */
  async stop(): Promise<void> {
    Atomics.store(this.#words, STOP, 1);
    await within(STOP_MS, "the lying host to stop", this.#ended);
    this.#release();
  }
}

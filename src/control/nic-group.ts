/**
 * The NICs of one process, each in a worker of its own. A NIC that fails ends alone: it is
 * reported, not started again, and the others run on.
 */
import { NicFailed } from "./handle.ts";

/** One of them: a `WorkerHandle`, or what owns one. */
export interface GroupedNic {
  readonly name: string;
  /** Rejects if it fails. */
  readonly ended: Promise<void>;
  stop(): Promise<void>;
}

export class NicGroup<Nic extends GroupedNic> {
  readonly #nics: readonly Nic[];
  readonly #failed: (nic: Nic, failure: Error) => void;
  readonly #failures = new Map<Nic, Error>();
  readonly #running: Set<Nic>;
  /** Settles when every NIC has ended; rejects if any has failed, with why. */
  readonly ended: Promise<void>;

  /** @param failed is called once for each NIC that fails */
  constructor(nics: readonly Nic[], failed: (nic: Nic, failure: Error) => void) {
    this.#nics = nics;
    this.#failed = failed;
    this.#running = new Set(nics);
    this.ended = Promise.all(nics.map((nic) => this.#watch(nic))).then(() => this.#judge());
    // A failure that no caller awaits must not end the process.
    this.ended.catch(() => {});
  }

  /** In the order in which they were given. */
  get running(): readonly Nic[] {
    return this.#nics.filter((nic) => this.#running.has(nic));
  }

  /**
   * Takes a step with every NIC that runs, side by side. A NIC whose step fails has failed, and is
   * stopped. One that ends meanwhile is not waited for.
   */
  async each(step: (nic: Nic) => Promise<void>): Promise<void> {
    const steps = this.running.map(async (nic) => {
      try {
        await Promise.race([step(nic), nic.ended]);
      } catch (error) {
        this.#fail(nic, error as Error);
        await nic.stop().catch(() => {});
      }
    });
    await Promise.all(steps);
  }

  /** Ends all of them, at once. `ended` says how. */
  async stop(): Promise<void> {
    await Promise.all(this.#nics.map((nic) => nic.stop().catch(() => {})));
  }

  async #watch(nic: Nic): Promise<void> {
    try {
      await nic.ended;
    } catch (error) {
      this.#fail(nic, error as Error);
    }
    this.#running.delete(nic);
  }

  /** What the end of one causes in another is not a failure of its own. */
  #fail(nic: Nic, error: Error): void {
    this.#running.delete(nic);
    if (this.#failures.has(nic)) return;
    this.#failures.set(nic, error);
    this.#failed(nic, error);
  }

  #judge(): void {
    const [first] = this.#failures.values();
    if (first === undefined) return;
    if (this.#nics.length === 1) throw first;
    const list = [...this.#failures].map(([{ name }, { message }]) => `${name}: ${message}`);
    const count = `${list.length} of ${this.#nics.length} NICs`;
    throw new NicFailed(`${count} failed (${list.join("; ")})`, true);
  }
}

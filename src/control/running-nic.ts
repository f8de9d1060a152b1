/** The spec of one running NIC, and the one way to change it. */

import { failure } from "../errors.ts";
import { NicFailed } from "./handle.ts";
import { type Action, apply, bodyOf, plan, replaces } from "./plan.ts";
import { completeSpec } from "./read-spec.ts";
import type { NicSpec } from "./spec.ts";

/** What runs a NIC: its worker's handle; a fake in tests. */
export interface NicWorker {
  request<Result = void>(verb: string, body?: unknown): Promise<Result>;
}

export type Status = Readonly<Record<string, unknown>>;

export interface RunningNicOptions {
  /** What it was started with. */
  readonly spec: NicSpec;
  readonly worker: NicWorker;
  /** What the process adds to the worker's status. */
  readonly process: () => Promise<Status>;
  /** Replaces programs and rings while packets flow. @throws Error; then nothing has changed */
  readonly replace: (wanted: NicSpec) => Promise<void>;
  readonly changed?: (actions: readonly Action[]) => void;
}

/** What clients are shown of a NIC. */
export interface NicView {
  readonly name: string;
  readonly spec: NicSpec;
  readonly status: Status;
  /** Of its programs: what the NIC offers, and what the guest's driver runs; null: none yet. */
  readonly generation: { readonly wanted: number; readonly running: number | null };
}

export class RunningNic {
  /** Why it has ended; null while it runs. */
  failure: string | null = null;
  /** Programs and rings are being replaced: changes take longer than usual. */
  isReplacing = false;
  /** Why it cannot change at present; null if it can. */
  #held: string | null = null;
  readonly #options: RunningNicOptions;
  #spec: NicSpec;
  /** Settles after the change in progress: changes are made one after the other. */
  #last: Promise<unknown> = Promise.resolve();

  constructor(options: RunningNicOptions) {
    this.#options = options;
    this.#spec = options.spec;
  }

  get spec(): NicSpec {
    return this.#spec;
  }

  /** @throws NicFailed if its worker hangs, or it has ended */
  async status(): Promise<Status> {
    if (this.failure !== null) throw new NicFailed(this.failure, true);
    const { worker, process } = this.#options;
    return { ...(await process()), ...(await worker.request<Status>("status")) };
  }

  async view(): Promise<NicView> {
    const status = await this.status();
    const wanted = Number(status.generation ?? 1);
    const running = status.programs === "-" ? null : wanted;
    const { name } = this.#spec;
    return { name, spec: this.#spec, status, generation: { wanted, running } };
  }

  /** @param given fields that are not given get their default @throws SpecError, ChangeRefused */
  plan(given: Partial<NicSpec>): Action[] {
    return plan(this.#spec, completeSpec(given, this.#spec));
  }

  /** @param given fields that are not given stay @throws SpecError, ChangeRefused */
  planChange(given: Partial<NicSpec>): Action[] {
    return this.plan({ ...this.#spec, ...given });
  }

  /**
   * Makes the plan as soon as earlier changes are made, and carries it out: all of it or nothing.
   * @throws what `makePlan` throws; ApplyFailed
   */
  apply(makePlan: () => Action[]): Promise<Action[]> {
    const made = this.#last.then(async () => {
      if (this.#held !== null) throw failure(this.#held);
      const actions = makePlan();
      const [, ...rest] = actions.filter(replaces);
      const changes = actions.filter((action) => !rest.includes(action));
      await apply(changes, (action) => this.#change(action, actions));
      if (actions.length > 0) this.#options.changed?.(actions);
      return actions;
    });
    this.#last = made.catch(() => {});
    return made;
  }

  /** Refuses changes from now on, and waits for the one in progress. @returns ends it */
  async hold(why: string): Promise<() => void> {
    this.#held = why;
    await this.#last;
    return () => {
      this.#held = null;
    };
  }

  async #change(action: Action, all: readonly Action[]): Promise<void> {
    if (replaces(action)) return this.#replace(all.filter(replaces));
    await this.#options.worker.request(action.verb, bodyOf(action, this.#spec));
    this.#spec = { ...this.#spec, [action.field]: action.to };
  }

  async #replace(actions: readonly Action[]): Promise<void> {
    const fields = Object.fromEntries(actions.map(({ field, to }) => [field, to]));
    const wanted: NicSpec = { ...this.#spec, ...fields };
    await this.#become(wanted, this.#options.replace(wanted));
  }

  async #become(wanted: NicSpec, replaced: Promise<unknown>): Promise<void> {
    this.isReplacing = true;
    try {
      await replaced;
      this.#spec = wanted;
    } finally {
      this.isReplacing = false;
    }
  }

  /** A process that crashed had begun to replace programs and rings. Other changes wait. */
  continueReplacing(wanted: NicSpec, replaced: Promise<unknown>): Promise<void> {
    const done = this.#become(wanted, replaced).then(() => this.#options.changed?.([]));
    this.#last = done.catch(() => {});
    return done;
  }
}

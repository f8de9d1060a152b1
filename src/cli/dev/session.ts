/** One run of `bpfhv dev`: from each save to the new NIC in the running guest, one by one. */
import { statSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import type { QueueSizes } from "../../devices/program-set.ts";
import { failure } from "../../errors.ts";
import { Builder, type Built } from "./build.ts";
import { GuestHandle } from "./guest-handle.ts";
import { type Problem, problemOf } from "./problem.ts";
import { Report } from "./report.ts";
import type { Sample, Target } from "./target.ts";
import { FileWatch } from "./watch.ts";

/** Packets each way of the trial of a set. */
const TRIAL = 500;
const TRIAL_MS = 5000;
/** A file that is gone or empty may be in the middle of a save. */
const MISSING_MS = 200;
/** How long the rate after a replacement is measured. */
const AFTER_MS = 300;
/** Trials of one thread: each leaves its module there. */
const MAX_TRIALS = 100;

export interface SessionOptions {
  readonly path: string;
  readonly sizes: QueueSizes;
  readonly json: boolean;
  readonly makeTarget: () => Target;
}

type Loaded = { readonly ms: number } | Problem;

export class Session {
  readonly #options: SessionOptions;
  readonly #builder: Builder;
  readonly #report: Report;
  readonly #watch = new FileWatch(() => this.#changed());
  #target: Target | undefined;
  #trial: GuestHandle | undefined;
  #trials = 0;
  /** What runs, and what ran before it. */
  #running: Built | undefined;
  #before: Built | undefined;
  #sample: Sample | undefined;
  #texts = "";
  #dirty = false;
  #turn: Promise<void> | undefined;
  #stopping = false;
  #fail!: (error: Error) => void;
  /** Rejects when it cannot go on. */
  readonly failed = new Promise<never>((_resolve, reject) => {
    this.#fail = reject;
  });

  constructor(options: SessionOptions) {
    this.#options = options;
    const { path, sizes, json } = options;
    this.#builder = new Builder(path, sizes);
    this.#report = new Report(json);
    this.failed.catch(() => {});
  }

  start(): void {
    this.#watch.follow(this.#builder.files);
    this.#changed();
  }

  /** @throws CommandError if packets were lost, repeated or damaged */
  async stop(): Promise<void> {
    this.#stopping = true;
    this.#watch.close();
    await this.#turn;
    await this.#trial?.end();
    if (this.#target === undefined) return;
    const { packets, lost, repeated, damaged } = await this.#target.stop();
    this.#report.tell({ event: "stopped", packets, lost, repeated, damaged });
    const bad = lost + repeated + damaged;
    if (bad > 0) throw failure(`${bad} packets were lost, repeated or damaged`);
  }

  #changed(): void {
    this.#dirty = true;
    this.#turn ??= this.#rounds()
      .catch((error: Error) => this.#fail(error))
      .finally(() => {
        this.#turn = undefined;
      });
  }

  async #rounds(): Promise<void> {
    while (this.#dirty && !this.#stopping) {
      this.#dirty = false;
      await this.#round();
    }
  }

  async #round(): Promise<void> {
    const texts = this.#builder.texts();
    if (texts === this.#texts) return;
    if (!this.#isThere()) {
      await sleep(MISSING_MS);
      if (this.#isThere()) this.#dirty = true;
      else this.#report.tell({ event: "missing", file: this.#options.path });
      return;
    }
    const saved = this.#savedAt();
    const started = now();
    const built = await this.#builder.compile();
    this.#watch.follow(this.#builder.files);
    const after = this.#builder.texts();
    // Saved again meanwhile: what is half written is not worth a word.
    if (!after.startsWith(texts)) {
      this.#dirty = true;
      return;
    }
    this.#texts = after;
    if (!("format" in built)) return this.#refuse(built);
    const trial = this.#try(built);
    const verified = this.#builder.verify(built);
    const loaded = await trial;
    if (typeof verified !== "number") return this.#refuse(verified);
    if (!("ms" in loaded)) return this.#refuse(loaded);
    const times = { notice: started - saved, verify: verified, load: loaded.ms };
    await this.#use(built, saved, times);
  }

  #refuse(problem: Problem): void {
    this.#report.tell({ event: "refused", ...problem });
  }

  async #use(
    built: Built,
    saved: number,
    times: { readonly notice: number; readonly verify: number; readonly load: number },
  ): Promise<void> {
    const device = built.format.name;
    const first = this.#target === undefined;
    const before = first ? undefined : await this.#target!.count();
    const started = now();
    try {
      if (first) await this.#begin(built);
      else await this.#target!.swap(built);
    } catch (error) {
      return this.#refuse(problemOf("swap", error));
    }
    const ended = now();
    this.#before = this.#running ?? built;
    this.#running = built;
    this.#report.runs = true;
    if (first) this.#report.tell({ event: "started", device, target: this.#target!.name });
    const phases = { ...times, compile: built.compileMs, swap: ended - started };
    const { notice, compile, verify, load, swap } = phases;
    const { instructions } = built;
    const ordered = { notice, compile, verify, load, swap };
    const ms = ended - saved;
    // The first one replaces nothing, and the process is not warm.
    if (!first) this.#report.tell({ event: "swapped", device, ms, phases: ordered, instructions });
    await this.#measure(before);
  }

  async #begin(built: Built): Promise<void> {
    const target = this.#options.makeTarget();
    await target.start(built).catch(async (error: Error) => {
      await target.stop();
      throw error;
    });
    this.#target = target;
    void target.died.then((error) => this.#died(target, error));
  }

  /** A NIC that passed its trial, and failed under load: the one of before starts again. */
  async #died(target: Target, error: Error): Promise<void> {
    if (this.#stopping || target !== this.#target) return;
    this.#target = undefined;
    const good = this.#before;
    if (good === undefined || good === this.#running) {
      return this.#fail(failure(`the guest's thread died: ${error.message}`));
    }
    this.#report.tell({ event: "died", message: error.message });
    await this.#turn;
    this.#running = good;
    await this.#begin(good).catch((again: Error) => this.#fail(failure(again.message)));
  }

  async #measure(before: Sample | undefined): Promise<void> {
    if (before === undefined || this.#sample === undefined) {
      await sleep(AFTER_MS);
      this.#sample = await this.#target?.count().catch(() => undefined);
      return;
    }
    const started = await this.#target!.count();
    await sleep(AFTER_MS);
    const sample = await this.#target!.count();
    const { packets, lost, repeated, damaged } = sample;
    const rates = { before: rateOf(this.#sample, before), after: rateOf(started, sample) };
    this.#sample = sample;
    this.#report.tell({ event: "rate", ...rates, packets, lost, repeated, damaged });
  }

  /** Runs a set in a thread of its own first: an endless loop, or a lost packet, is found there. */
  async #try({ device, sets, sizes }: Built): Promise<Loaded> {
    const order = { verb: "try", set: { device, sets, sizes }, packets: TRIAL } as const;
    this.#trial ??= new GuestHandle();
    const trial = this.#trial;
    const started = now();
    try {
      await trial.ask(order, TRIAL_MS);
      const ms = now() - started;
      if (++this.#trials % MAX_TRIALS === 0) await this.#renew();
      return { ms };
    } catch (error) {
      await this.#renew();
      return problemOf("load", error);
    }
  }

  async #renew(): Promise<void> {
    const old = this.#trial;
    this.#trial = undefined;
    await old?.end();
    this.#trial = new GuestHandle();
  }

  #isThere(): boolean {
    const stats = statSync(this.#options.path, { throwIfNoEntry: false });
    return stats?.isFile() === true && stats.size > 0;
  }

  #savedAt(): number {
    const times = [...this.#builder.files].map(
      (file) => statSync(file, { throwIfNoEntry: false })?.mtimeMs ?? 0,
    );
    // A file that was moved here, or has a time of the future.
    const newest = Math.max(...times);
    const earliest = now() - 1000;
    return newest > earliest && newest < now() ? newest : now();
  }
}

/** Of the clock that files have. */
const now = (): number => performance.timeOrigin + performance.now();

function rateOf(from: Sample, to: Sample): number {
  const ms = to.busyMs - from.busyMs;
  return ms > 0 ? ((to.packets - from.packets) / ms) * 1000 : 0;
}

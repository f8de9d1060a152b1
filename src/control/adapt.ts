/**
 * `bpfhv/policy`: policies that adapt a running NIC. A policy gets rates and says what the NIC
 * should be; `Adapter` asks it, changes the NIC, and stops a policy that throws, hangs, flaps or
 * asks for what the NIC refuses.
 */
import { createContext, Script } from "node:vm";
import { FORMATS } from "../devices/registry.ts";
import type { FieldName, NicSpec } from "./spec.ts";

/** What a policy decides by. */
export interface Sample {
  /** Since the sample before. */
  readonly ms: number;
  /** Both directions of all queues. */
  readonly packetsPerSecond: number;
  readonly bytesPerSecond: number;
  readonly dropsPerSecond: number;
  /** 0 if no packet moved. */
  readonly bytesPerPacket: number;
  readonly spec: NicSpec;
}

/** Fields to change; those that are not given stay. */
export type Wanted = Partial<NicSpec>;

export interface Policy {
  readonly name: string;
  /** Called every second or so. Anything that it keeps is its own. */
  readonly decide: (sample: Sample) => Wanted | null;
}

/** For types: returns what it is given. */
export const definePolicy = (policy: Policy): Policy => policy;

export interface AdapterOptions {
  readonly policy: Policy;
  /** Makes the NIC so. @throws Error that says why it is refused; then nothing has changed */
  readonly change: (wanted: Wanted) => Promise<void>;
  /** A change is followed by none for so long. */
  readonly dwellMs?: number;
}

export type Outcome =
  | { readonly state: "kept" | "held" }
  | { readonly state: "changed"; readonly wanted: Wanted }
  | { readonly state: "refused"; readonly wanted: Wanted; readonly reason: string }
  | { readonly state: "stopped"; readonly reason: string };

const DWELL_MS = 3000;
/** Wall-clock time: a busy machine takes some of it. */
const DECIDE_MS = 2000;
/** Changes back to what a field was within a minute: more of them is flapping. */
const FLAP_MS = 60_000;
const MAX_REVERSALS = 3;
/** A guest may be booting; a policy that asks again and again asks for the impossible. */
const MAX_REFUSALS = 3;

const CALL = new Script("decide()");

export class Adapter {
  readonly #options: AdapterOptions;
  /** Why the policy was stopped; "" while it is asked. */
  stopped = "";
  #changedAt = Number.NEGATIVE_INFINITY;
  #refusals = 0;
  /** What fields were before their latest change. */
  readonly #before = new Map<FieldName, string>();
  #reversals: number[] = [];

  constructor(options: AdapterOptions) {
    this.#options = options;
  }

  /** Asks the policy once. Never rejects. @param now milliseconds, of any clock */
  async look(sample: Sample, now = performance.now()): Promise<Outcome> {
    if (this.stopped !== "") return { state: "stopped", reason: this.stopped };
    const wanted = this.#ask(sample);
    if (typeof wanted === "string") return this.#stop(wanted);
    const fields = differences(sample.spec, wanted);
    if (fields.length === 0) return { state: "kept" };
    if (now - this.#changedAt < (this.#options.dwellMs ?? DWELL_MS)) return { state: "held" };
    if (this.#flaps(fields, wanted, now)) {
      const changes = `${MAX_REVERSALS + 1} changes back within ${FLAP_MS / 1000} s`;
      return this.#stop(`flaps: ${changes} (${fields.join(", ")})`);
    }
    return this.#change(fields, wanted, sample.spec, now);
  }

  async #change(
    fields: readonly FieldName[],
    wanted: Wanted,
    spec: NicSpec,
    now: number,
  ): Promise<Outcome> {
    try {
      await this.#options.change(wanted);
    } catch (error) {
      const reason = (error as Error).message;
      this.#changedAt = now;
      if (++this.#refusals < MAX_REFUSALS) return { state: "refused", wanted, reason };
      return this.#stop(`was refused ${MAX_REFUSALS} times in a row, the last time: ${reason}`);
    }
    this.#refusals = 0;
    this.#changedAt = now;
    for (const field of fields) this.#before.set(field, JSON.stringify(spec[field]));
    return { state: "changed", wanted };
  }

  #ask(sample: Sample): Wanted | string {
    const { policy } = this.#options;
    try {
      const decide = () => policy.decide(sample);
      const wanted: unknown = CALL.runInContext(createContext({ decide }), { timeout: DECIDE_MS });
      if (wanted === null) return {};
      if (typeof wanted === "object" && !Array.isArray(wanted)) return wanted as Wanted;
      return `returned ${typeof wanted}: return fields of the NIC's spec, or null`;
    } catch (error) {
      const { code, message } = (error ?? {}) as { code?: unknown; message?: unknown };
      if (code === "ERR_SCRIPT_EXECUTION_TIMEOUT") return `did not decide within ${DECIDE_MS} ms`;
      return `threw ${String(message ?? error)}`;
    }
  }

  #flaps(fields: readonly FieldName[], wanted: Wanted, now: number): boolean {
    const isBack = fields.some((f) => this.#before.get(f) === JSON.stringify(wanted[f]));
    this.#reversals = this.#reversals.filter((at) => now - at < FLAP_MS);
    if (isBack) this.#reversals.push(now);
    return this.#reversals.length > MAX_REVERSALS;
  }

  #stop(why: string): Outcome {
    this.stopped = `policy ${this.#options.policy.name} ${why}`;
    return { state: "stopped", reason: this.stopped };
  }
}

function differences(spec: NicSpec, wanted: Wanted): FieldName[] {
  const names = Object.keys(wanted) as FieldName[];
  return names.filter((name) => JSON.stringify(spec[name]) !== JSON.stringify(wanted[name]));
}

/** Average packet lengths with room between them, and so many samples in a row, to move. */
const LARGE = 700;
const SMALL = 300;
const SAMPLES = 3;
/** With fewer packets a second nothing is gained. */
const LEAST_RATE = 100;

/** Small packets: the ring with the least work for each. Large ones: a ring with offloads. */
export function offloadWhenLarge(): Policy {
  const minimal = FORMATS.find(({ features }) => features === 0)!.name;
  const offloading = FORMATS.find(({ features }) => features !== 0)!.name;
  let streak = 0;
  return {
    name: "offload-when-large",
    decide({ packetsPerSecond, bytesPerPacket, spec }) {
      const isMinimal = spec.device === minimal;
      if (!isMinimal && spec.device !== offloading) return null;
      const moves = isMinimal ? bytesPerPacket > LARGE : bytesPerPacket < SMALL;
      streak = moves && packetsPerSecond > LEAST_RATE ? streak + 1 : 0;
      if (streak < SAMPLES) return null;
      return { device: isMinimal ? offloading : minimal };
    },
  };
}

export const POLICIES: Readonly<Record<string, () => Policy>> = {
  "offload-when-large": offloadWhenLarge,
};

/**
 * The replacement of a NIC's set while packets flow (ability OVERLAP), host side:
 *
 *     idle -> staged -> go -> cutting -> idle
 *
 * A staged set can be withdrawn, refused or time out: then nothing has changed. From `go` on the
 * replacement is completed: by the driver's cuts, queue by queue, or at once if it stops the NIC.
 * Drivers without the ability are asked to close and open again: idle -> asked -> idle.
 *
 * Everything here but `stage`, `ask`, `withdraw` and `expire` is what a guest does, at any time and
 * in any order: a method returns why it refuses, or "".
 */
import { ANSWER, EVENT } from "../abi/index.ts";
import type { QueuePair } from "../engine/pair.ts";
import type { Queue } from "../engine/queue.ts";
import type { RingSettings } from "../engine/registered-ring.ts";
import { receiveOffloads } from "../memory/offloads.ts";
import type { Generation } from "./generation.ts";
import type { NicState } from "./state.ts";

export type UpgradePhase = "idle" | "asked" | "staged" | "go" | "cutting";

/** SET_VERDICT has 24 bits for the number. */
const MAX_GENERATION = 0xffffff;

/** Of the latest replacement: plain data. */
export interface UpgradeReport {
  /** Number of the new set. */
  readonly generation: number;
  readonly state: UpgradePhase | "done" | "withdrawn" | "refused";
  /** Why it was withdrawn or refused, or how it was done. */
  readonly reason: string;
  /** Since it was staged, and since the guest was ready; until it ended. */
  readonly ms: number;
  readonly cutMs: number;
  /** Descriptors in the transmit rings that were not yet sent when the guest moved on. */
  readonly inFlight: number;
  /** Packets that were sent from the replaced rings after that. */
  readonly fromOld: number;
}

/** The NIC, as its replacement sees it. */
export interface UpgradedNic {
  readonly pairs: readonly QueuePair[];
  readonly queues: readonly Queue[];
  running: Generation;
  wanted: Generation | null;
  readonly state: NicState;
  readonly enabled: boolean;
  readonly ringSettings: RingSettings | null;
  raise(event: number): void;
  raiseUpgrade(): void;
}

export class Upgrade {
  phase: UpgradePhase = "idle";
  /** The set whose registers SET_VIEW shows; 0: the current one. */
  view = 0;
  /** What SET_VERDICT reads: of the set that was staged last. */
  answer: number = ANSWER.PENDING;
  /** FEATURES was written for the staged set. */
  negotiated = false;
  selectedFeatures = 0;
  readonly #nic: UpgradedNic;
  /** Of the set that was staged last; 0: none was. */
  lastId = 0;
  #deadline = Number.POSITIVE_INFINITY;
  #stagedAt = 0;
  #readyAt = 0;
  #endedAt = 0;
  #inFlight = 0;
  #fromOld = 0;
  #state: UpgradeReport["state"] = "idle";
  #reason = "";

  constructor(nic: UpgradedNic) {
    this.#nic = nic;
  }

  /** Numbers are not used again: a verdict on a withdrawn set must not fit a later one. */
  get nextId(): number {
    const last = Math.max(this.lastId, this.#nic.running.id);
    return last < MAX_GENERATION ? last + 1 : 1;
  }

  /** Goes on where another process has left, which was replacing nothing. */
  resume(view: number, answer: number, lastId: number): void {
    this.view = view;
    this.answer = answer;
    this.lastId = lastId;
  }

  /** Goes on with a replacement that the guest has agreed to. */
  resumeCut(phase: "go" | "cutting", selectedFeatures: number): void {
    this.phase = phase;
    this.#state = phase;
    this.selectedFeatures = selectedFeatures;
    this.#stagedAt = performance.now();
    this.#readyAt = this.#stagedAt;
    const offloads = receiveOffloads(selectedFeatures);
    for (const pair of this.#nic.pairs) pair.lowerReceiveOffloads(offloads);
  }

  /* What the host does */

  /** Offers a complete set to a driver that has acknowledged OVERLAP and enabled the NIC. */
  stage(next: Generation, verdictMs: number): void {
    this.#begin(next, "staged", verdictMs);
    this.#nic.raise(EVENT.STAGED);
  }

  /** Asks a driver of version 1 to close, fetch a complete set, and open again. */
  ask(next: Generation, answerMs: number): void {
    this.#begin(next, "asked", answerMs);
    this.#nic.state.upgradePending = true;
    this.#nic.raiseUpgrade();
  }

  #begin(next: Generation, phase: "staged" | "asked", limitMs: number): void {
    if (this.phase !== "idle") throw new Error(`set ${this.#nic.wanted?.id} is being taken`);
    const now = performance.now();
    this.#nic.wanted = next;
    this.lastId = next.id;
    this.phase = phase;
    this.#state = phase;
    this.answer = ANSWER.PENDING;
    this.negotiated = false;
    this.selectedFeatures = 0;
    this.#deadline = now + limitMs;
    this.#stagedAt = now;
    this.#readyAt = now;
    this.#inFlight = 0;
    this.#fromOld = 0;
    this.#reason = "";
  }

  /** @returns false if it is too late: the guest has agreed, or the set is complete */
  withdraw(reason: string): boolean {
    if (this.phase !== "staged" && this.phase !== "asked") return false;
    this.#drop("withdrawn", reason);
    return true;
  }

  /** Withdraws a set that the guest has not judged in time. */
  expire(now: number): void {
    if (now < this.#deadline) return;
    this.withdraw("the guest's driver has not answered in time");
  }

  /* What the guest does */

  /** The set whose registers are shown; null if SET_VIEW is of one that is staged no more. */
  get shown(): Generation | null {
    const { running, wanted } = this.#nic;
    if (this.view === 0) return running;
    return this.phase !== "asked" && wanted?.id === this.view ? wanted : null;
  }

  show(next: boolean): string {
    if (!next) this.view = 0;
    else if (this.phase === "idle" || this.phase === "asked") return "no set is staged";
    else this.view = this.#nic.wanted!.id;
    return "";
  }

  /** The viewed set is staged, and its features and contexts may be set. */
  get open(): boolean {
    return this.phase === "staged" && this.shown === this.#nic.wanted;
  }

  /** The driver has everything that it needs to run the staged set. */
  ready(): string {
    const { queues, pairs } = this.#nic;
    if (this.phase !== "staged") return "no set is staged";
    const missing = queues.find(({ next }) => next === null);
    if (missing !== undefined) return `queue ${missing.name} has no context of the next set`;
    for (const { next } of queues) next!.features = this.selectedFeatures;
    const offloads = receiveOffloads(this.selectedFeatures);
    for (const pair of pairs) pair.lowerReceiveOffloads(offloads);
    this.phase = "go";
    this.#state = "go";
    this.answer = ANSWER.GO;
    this.#deadline = Number.POSITIVE_INFINITY;
    this.#readyAt = performance.now();
    return "";
  }

  /** The driver refuses the staged set. */
  refused(reason: string): void {
    this.#drop("refused", reason);
  }

  /** The driver publishes to the next ring of a queue from here on. */
  cut(direction: "rx" | "tx", index: number): string {
    const { queues, pairs, state, ringSettings } = this.#nic;
    const queue = queues[index];
    if (queue?.direction !== direction) return `queue ${index} is not a ${direction} queue`;
    if (this.phase !== "go" && this.phase !== "cutting") return "the host has not agreed";
    if (queue.next === null) return `queue ${queue.name} has no next ring`;
    this.phase = "cutting";
    this.#state = "cutting";
    const pair = pairs[index % pairs.length];
    if (direction === "rx") pair.cutRx(state.selectedFeatures, ringSettings);
    else {
      this.#inFlight += queue.current?.ring?.fill() ?? 0;
      pair.cutTx(state.selectedFeatures, ringSettings);
    }
    return "";
  }

  /** Bit q: the retiring ring of queue q is drained. */
  get drained(): number {
    const { queues } = this.#nic;
    return queues.reduce((bits, { retiring }, q) => bits | (retiring?.drained ? 1 << q : 0), 0);
  }

  /** The driver frees the retiring ring of a queue. */
  retire(index: number): string {
    const { queues } = this.#nic;
    const retiring = queues[index]?.retiring ?? null;
    if (retiring === null) return `queue ${index} has no retiring ring`;
    if (!retiring.drained) return `the retiring ring of queue ${index} is not drained`;
    this.#fromOld += retiring.sent;
    queues[index].retired();
    const over = queues.every(({ next, retiring }) => next === null && retiring === null);
    if (over) this.#adopt("the guest took it while packets flowed");
    return "";
  }

  /** From `go` on the replacement cannot be undone. */
  get agreed(): boolean {
    return this.phase === "go" || this.phase === "cutting";
  }

  /**
   * The NIC stops: the driver disables it, or the machine resets it. Call it when its queues are
   * disabled, and before they forget their contexts.
   */
  stopped(reason: string): void {
    if (this.phase === "staged") this.#drop("withdrawn", reason);
    if (this.agreed) this.#adopt(`${reason}: it took the set at once`);
  }

  /** A driver that was asked has closed; or it is gone, and the next one finds the new set. */
  taken(reason: string): void {
    if (this.phase !== "asked") return;
    for (const queue of this.#nic.queues) queue.forget();
    this.selectedFeatures = 0;
    this.#adopt(reason);
    this.#nic.state.featuresNegotiated = false;
  }

  /** Takes a set that no driver knows anything of. */
  take(next: Generation): void {
    this.#begin(next, "asked", Number.POSITIVE_INFINITY);
    this.taken("no driver had looked at the NIC");
  }

  #adopt(reason: string): void {
    const { queues, pairs, state, wanted } = this.#nic;
    for (const queue of queues) {
      queue.adoptNext();
      // From here on it has the NIC's.
      if (queue.current !== null) queue.current.features = null;
    }
    state.selectedFeatures = this.selectedFeatures;
    state.upgradePending = false;
    this.#nic.running = wanted!;
    this.#nic.wanted = null;
    for (const pair of pairs) this.#nic.running.configure(pair);
    this.#end("done", reason);
  }

  #drop(state: "withdrawn" | "refused", reason: string): void {
    const { queues, state: registers } = this.#nic;
    for (const queue of queues) queue.forgetNext();
    this.#nic.wanted = null;
    registers.upgradePending = false;
    this.answer = ANSWER.WITHDRAWN;
    this.#end(state, reason);
    this.#nic.raise(EVENT.WITHDRAWN);
  }

  #end(state: UpgradeReport["state"], reason: string): void {
    this.phase = "idle";
    this.#state = state;
    this.#reason = reason;
    this.#deadline = Number.POSITIVE_INFINITY;
    this.#endedAt = performance.now();
  }

  /** Of the latest replacement; null if there was none. */
  get report(): UpgradeReport | null {
    if (this.#state === "idle") return null;
    const until = this.phase === "idle" ? this.#endedAt : performance.now();
    return {
      ...{ generation: this.lastId, state: this.#state, reason: this.#reason },
      ...{ ms: until - this.#stagedAt, cutMs: until - this.#readyAt },
      ...{ inFlight: this.#inFlight, fromOld: this.#fromOld },
    };
  }
}

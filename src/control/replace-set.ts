/**
 * Replaces programs and rings of a running NIC: compiles and proves in the main thread, then has
 * the worker offer the set to the guest, and waits for what comes of it.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { loadFormat, prepareDevice, resolveDevice } from "../devices/registry.ts";
import { failure } from "../errors.ts";
import type { SetOrder } from "../frontends/served.ts";
import { offeredFeatures } from "../nic/config.ts";
import type { UpgradeReport } from "../nic/upgrade.ts";
import { nicOptions } from "./nic-options.ts";
import { type ProvedPrograms, provedPrograms } from "./programs.ts";
import type { NicWorker } from "./running-nic.ts";
import { type NicSpec, REPLACE } from "./spec.ts";

/** How long the guest's driver may take to verify and to agree; a client waits for it. */
const VERDICT_MS = 10_000;
/** Longer than a guest that has agreed needs. */
const CUT_MS = 10_000;
const POLL_MS = 5;

/** @throws Error that says why; then nothing has changed */
export async function replaceSet(
  worker: NicWorker,
  wanted: NicSpec,
  log: (text: string) => void,
): Promise<ProvedPrograms> {
  const made = await makeSet(worker, wanted);
  await worker.request(REPLACE, made.order);
  return finishSet(worker, made, log);
}

/** A set that a worker can load. */
export interface MadeSet {
  readonly order: SetOrder;
  readonly proved: ProvedPrograms;
  readonly format: string;
}

/** Compiles and proves, and has the worker load the format. @throws Error that says why */
export async function makeSet(worker: NicWorker, wanted: NicSpec): Promise<MadeSet> {
  const device = await prepareDevice(resolveDevice(wanted.device));
  const format = await loadFormat(device, wanted.device);
  const { nic } = nicOptions(wanted, { device, format });
  const proved = await provedPrograms(format, { nic }, wanted.allowUnverified);
  await worker.request("load-device", device);
  const order: SetOrder = {
    ...{ device, rxBufs: nic.rxBufs, txBufs: nic.txBufs, sets: proved.sets },
    ...{ features: offeredFeatures({ ...nic, device: format }), limitMs: VERDICT_MS },
    mayLose: wanted.acceptLoss,
  };
  return { order, proved, format: format.name };
}

/** Waits until the guest has taken the set, or not. @throws Error that says why not */
export async function finishSet(
  worker: NicWorker,
  { proved, format }: MadeSet,
  log: (text: string) => void,
): Promise<ProvedPrograms> {
  const report = await outcomeOf(worker);
  if (report.state !== "done") throw failure(`set ${report.generation} ${wordsOf(report)}`);
  log(`set ${report.generation} (${format}) ${wordsOf(report)}`);
  return proved;
}

async function outcomeOf(worker: NicWorker): Promise<UpgradeReport> {
  for (let waited = 0; ; waited += POLL_MS) {
    const report = await worker.request<UpgradeReport>("set-report");
    if (["done", "withdrawn", "refused"].includes(report.state)) return report;
    if (waited > VERDICT_MS + CUT_MS) return report;
    await sleep(POLL_MS);
  }
}

/** For people, behind the number of the set. */
export function wordsOf({ state, reason, ms, cutMs, inFlight, fromOld }: UpgradeReport): string {
  if (state === "withdrawn" || state === "refused") return `was not taken: ${reason}`;
  if (state !== "done") return "is still being taken by the guest, which has agreed";
  const times = `${ms.toFixed(0)} ms, ${cutMs.toFixed(0)} of them from the guest's yes`;
  const packets = `${inFlight} descriptors in flight, ${fromOld} packets sent from the old rings`;
  return `is running after ${times}; ${packets} (${reason})`;
}

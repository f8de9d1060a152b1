/** `bpfhv adapt`: a policy in TypeScript changes a running NIC as its load changes. */
import { existsSync } from "node:fs";
import { resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { pathToFileURL } from "node:url";
import { Command } from "commander";
import { Adapter, type Outcome, POLICIES, type Policy, type Sample } from "../control/adapt.ts";
import { readSpec } from "../control/read-spec.ts";
import type { NicSpec } from "../control/spec.ts";
import { prepareDevice, resolveDevice } from "../devices/registry.ts";
import { failure, Usage, whole } from "../errors.ts";
import { DROP_COUNTERS, type QueueCounterName } from "../memory/counters.ts";
import { checked, request } from "./ask-nic.ts";
import { Lifetime } from "./lifetime.ts";

const NAMES = Object.keys(POLICIES).join(", ");
/** The compiler, the guest's verifier, and a guest that is busy. */
const CHANGE = { timeoutMs: 60_000 };

interface AdaptFlags {
  readonly policy: string;
  readonly every: number;
  readonly dryRun: boolean;
  readonly json: boolean;
}

export function adaptCommand(): Command {
  return new Command("adapt")
    .description("let a policy change a running NIC as its load changes, until Ctrl-C")
    .argument("<socket>", "the socket given to `bpfhv serve --socket`")
    .requiredOption("--policy <which>", `${NAMES}, or a module (./my-policy.ts)`)
    .option("--every <ms>", "time between two samples", whole("--every", 50, 3_600_000), 1000)
    .option("--dry-run", "say what would change, and change nothing", false)
    .option("--json", "one line of JSON per change", false)
    .addHelpText(
      "after",
      "\nA policy that throws, hangs, flaps, or asks three times for what is refused is stopped:\n" +
        "the exit status is 1, and the NIC stays as it is. docs/operating.md shows a policy.",
    )
    .action((socket: string, flags: AdaptFlags) => adapt(socket, flags));
}

async function adapt(socket: string, flags: AdaptFlags): Promise<void> {
  const policy = await policyOf(flags.policy);
  const change = async (wanted: object): Promise<void> => {
    if (flags.dryRun) return;
    // A module's path is this process's, not the server's.
    const fields: Record<string, unknown> = { ...wanted };
    if (typeof fields.device === "string") fields.device = resolveDevice(fields.device);
    await request(socket, { method: "PATCH", body: readSpec(fields) }, CHANGE);
  };
  const adapter = new Adapter({ policy, change });
  const life = new Lifetime();
  const asked = new AbortController();
  void life.asked.then(() => asked.abort());
  try {
    let before = await read(socket);
    for (;;) {
      await sleep(flags.every, undefined, { signal: asked.signal }).catch(() => {});
      if (asked.signal.aborted) return;
      const now = await read(socket);
      const outcome = await adapter.look(sampleOf(before, now));
      tell(outcome, flags);
      if (outcome.state === "stopped") throw failure(outcome.reason);
      before = now;
    }
  } finally {
    life.end();
  }
}

/** @throws CommandError */
async function policyOf(text: string): Promise<Policy> {
  if (Object.hasOwn(POLICIES, text)) return POLICIES[text]();
  if (!/[/\\]|\.[cm]?[jt]s$/.test(text)) {
    throw new Usage(`unknown policy "${text}": there are ${NAMES}, or a module (./my-policy.ts)`);
  }
  const path = resolve(text);
  if (!existsSync(path)) throw failure(`${text} is not there`);
  const loaded = await prepareDevice(pathToFileURL(path).href)
    .then((url) => import(url) as Promise<{ default?: Partial<Policy> }>)
    .catch((error: Error) => {
      throw failure(`cannot load ${text}: ${error.message}`);
    });
  const { name, decide } = loaded.default ?? {};
  if (typeof name === "string" && typeof decide === "function") return { name, decide };
  throw failure(`${text} has no policy: export default definePolicy({ name, decide })`);
}

interface Reading {
  readonly at: number;
  readonly spec: NicSpec;
  readonly packets: number;
  readonly bytes: number;
  readonly drops: number;
}

async function read(socket: string): Promise<Reading> {
  const { spec, status } = await request(socket, {});
  const { queues } = checked(socket, status);
  const sum = (...names: QueueCounterName[]): number =>
    queues.reduce((all, { counters }) => names.reduce((n, name) => n + counters[name], all), 0);
  return {
    ...{ at: performance.now(), spec: spec as NicSpec },
    ...{ packets: sum("packets"), bytes: sum("bytes"), drops: sum(...DROP_COUNTERS) },
  };
}

/** Counters that went back are those of a server that was started again. */
function sampleOf(before: Reading, now: Reading): Sample {
  const ms = Math.max(1, now.at - before.at);
  const since = (name: "packets" | "bytes" | "drops") => Math.max(0, now[name] - before[name]);
  const perSecond = (count: number): number => (count * 1000) / ms;
  const packets = since("packets");
  return {
    ...{ ms, spec: now.spec, packetsPerSecond: perSecond(packets) },
    ...{ bytesPerSecond: perSecond(since("bytes")), dropsPerSecond: perSecond(since("drops")) },
    bytesPerPacket: packets === 0 ? 0 : since("bytes") / packets,
  };
}

function tell(outcome: Outcome, { json, dryRun }: AdaptFlags): void {
  const { state } = outcome;
  if (state === "kept" || state === "held") return;
  if (json) process.stdout.write(`${JSON.stringify({ ...outcome, dryRun })}\n`);
  else if (state === "changed") {
    const fields = Object.entries(outcome.wanted).map(([name, value]) => `${name} ${value}`);
    process.stdout.write(`${dryRun ? "would change" : "changed"} to ${fields.join(", ")}\n`);
  } else if (state === "refused") process.stdout.write(`refused: ${outcome.reason}\n`);
}

/** `bpfhv upgrade`: another ring format, buffers or offloads for a running NIC. */
import { Command } from "commander";
import { readSpec } from "../control/read-spec.ts";
import { wordsOf } from "../control/replace-set.ts";
import { FIELD_NAMES, type FieldName, fieldOf, REPLACE } from "../control/spec.ts";
import { resolveDevice, versionedDevice } from "../devices/registry.ts";
import { failure, Usage } from "../errors.ts";
import type { UpgradeReport } from "../nic/upgrade.ts";
import { request } from "./ask-nic.ts";

/** The compiler, the guest's verifier, and a guest that is busy. */
const ANSWER_MS = 60_000;

const NAMES = FIELD_NAMES.filter((name) => {
  const { change } = fieldOf(name);
  return typeof change !== "string" && change.verb === REPLACE;
});

export function upgradeCommand(): Command {
  const command = new Command("upgrade")
    .description("replace programs and rings of a running NIC without losing a packet")
    .argument("<socket>", "the socket given to `bpfhv serve --socket`");
  for (const name of NAMES) command.option(fieldOf(name).option, fieldOf(name).about);
  command.option("--json", "print the outcome as JSON");
  return command.action((socket: string, flags: Record<string, string | boolean>) =>
    upgrade(socket, flags),
  );
}

async function upgrade(socket: string, flags: Record<string, string | boolean>): Promise<void> {
  const given = NAMES.filter((name) => typeof flags[name] === "string");
  if (given.length === 0) throw new Usage("nothing to change: give --device, or a size");
  const fields = given.map((name) => [name, readWord(name, String(flags[name]))]);
  const body = readSpec(Object.fromEntries(fields));
  const answer = await request(socket, { method: "PATCH", body }, { timeoutMs: ANSWER_MS });
  const changed = Array.isArray(answer.changed) && answer.changed.length > 0;
  const { upgrade: report } = (answer.status ?? {}) as { upgrade?: UpgradeReport | null };
  if (flags.json === true) {
    process.stdout.write(`${JSON.stringify({ changed, upgrade: report ?? null })}\n`);
  } else if (!changed) process.stdout.write("nothing to change\n");
  else if (!isReport(report)) throw failure(`${socket}: its answer has no report`);
  else process.stdout.write(`set ${report.generation} ${wordsOf(report)}\n`);
}

/** A module's path is the client's, not the server's; edited, it is another device. */
function readWord(name: FieldName, text: string): unknown {
  const { schema, words } = fieldOf(name);
  if (name === "device") return versionedDevice(resolveDevice(text));
  if (words !== undefined) return words.read(text);
  return schema.type === "integer" && /^\d{1,15}$/.test(text) ? Number(text) : text;
}

function isReport(value: unknown): value is UpgradeReport {
  const report = (value ?? {}) as Partial<Record<keyof UpgradeReport, unknown>>;
  const numbers = ["generation", "ms", "cutMs", "inFlight", "fromOld"] as const;
  return (
    numbers.every((name) => typeof report[name] === "number") &&
    typeof report.state === "string" &&
    typeof report.reason === "string"
  );
}

/** `bpfhv apply`: makes running NICs what a file says, now or whenever it changes. */
import { watchFile } from "node:fs";
import { resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { Command } from "commander";
import { completeSpecs, readConfig } from "../control/config-file.ts";
import { shown } from "../control/field.ts";
import { judge } from "../errors.ts";
import { request } from "./ask-nic.ts";

/** Longer than a guest may take to verify other programs. */
const APPLY = { timeoutMs: 60_000 };

interface ApplyFlags {
  readonly dryRun: boolean;
  readonly watch: boolean;
  readonly json: boolean;
}

/** The file is looked at so often: that follows links and other machines' changes, too. */
const LOOK_MS = 300;
/** Editors write a file in several steps. */
const SETTLED_MS = 100;

export function applyCommand(): Command {
  return new Command("apply")
    .description("make running NICs what a TOML file says; what cannot change live is refused")
    .argument("<file>", "as of `bpfhv serve --config`: [nic], or several [[nic]]")
    .option("--dry-run", "show what would change, and change nothing", false)
    .option("--watch", "go on, and apply the file whenever it changes", false)
    .option("--json", "one line of JSON per NIC", false)
    .action((file: string, flags: ApplyFlags) =>
      flags.watch ? applyAlways(file, flags) : applyFile(file, flags),
    );
}

/** Until a signal ends it. What is wrong is told, and looked at again when the file changes. */
async function applyAlways(file: string, flags: ApplyFlags): Promise<void> {
  let last: Promise<void> = Promise.resolve();
  const look = async () => {
    await sleep(SETTLED_MS);
    await applyFile(file, flags);
  };
  const tell = (error: unknown) => void process.stderr.write(`bpfhv: ${judge(error).line}\n`);
  const next = () => {
    last = last.then(look).catch(tell);
  };
  watchFile(file, { interval: LOOK_MS }, next);
  next();
  await last;
}

/** What a server says of one NIC; it is not trusted. */
interface Change {
  readonly field?: unknown;
  readonly from?: unknown;
  readonly to?: unknown;
}

/** Changes nothing if any of the NICs cannot become what the file says. @throws CommandError */
async function applyFile(file: string, flags: ApplyFlags): Promise<void> {
  const specs = await readConfig(file);
  // Two NICs on one socket, or fields that contradict each other.
  const sockets = completeSpecs(specs).map(({ socket }) => socket);
  for (const dryRun of flags.dryRun ? [true] : [true, false]) {
    for (const [n, spec] of specs.entries()) {
      const path = dryRun ? "/v1/nic?dry-run=1" : "/v1/nic";
      // The server may have another working directory.
      const body = { ...spec, socket: resolve(sockets[n]) };
      const answer = await request(sockets[n], { method: "PUT", path, body }, APPLY);
      const changes = answer[dryRun ? "plan" : "changed"];
      if (dryRun !== flags.dryRun) continue;
      print(sockets[n], Array.isArray(changes) ? changes : [], flags);
    }
  }
}

function print(socket: string, changes: readonly Change[], { json, dryRun }: ApplyFlags): void {
  if (json) {
    const line = { socket, [dryRun ? "plan" : "changed"]: changes };
    process.stdout.write(`${JSON.stringify(line)}\n`);
    return;
  }
  const lines = changes.map((each) => {
    const { field, from, to } = each ?? {};
    return `${socket}: ${shown(field)}: ${shown(from)} -> ${shown(to)}`;
  });
  if (lines.length === 0) lines.push(`${socket}: nothing to change`);
  process.stdout.write(`${lines.join("\n")}\n`);
}

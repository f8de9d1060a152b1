/**
 * The words of a command line, run as one command. All errors end here: one line, one exit status.
 */
import { Command, CommanderError } from "commander";
import type { WaitingWorker } from "../control/waiting-worker.ts";
import { report, STATUS } from "../errors.ts";

type Load = (worker?: WaitingWorker) => Promise<Command | Command[]>;

/** Loaded one by one: a NIC is not to wait for the compiler's or the backend's commands. */
const COMMANDS: Readonly<Record<string, Load>> = {
  serve: async (worker) => (await import("./serve.ts")).serveCommand(worker),
  keep: async () => (await import("./keep.ts")).keepCommand(),
  status: async () => (await import("./status.ts")).statusCommand(),
  /** set-port and the like: one for each field of a spec that can change live. */
  "set-": async () => (await import("./set.ts")).setCommands(),
  upgrade: async () => (await import("./upgrade.ts")).upgradeCommand(),
  apply: async () => (await import("./apply.ts")).applyCommand(),
  adapt: async () => (await import("./adapt.ts")).adaptCommand(),
  vm: async () => (await import("./vm.ts")).vmCommand(),
  top: async () => (await import("./top.ts")).topCommand(),
  compile: async () => (await import("./compile.ts")).compileCommand(),
  conformance: async () => (await import("./conformance.ts")).conformanceCommand(),
  disasm: async () => (await import("./disasm.ts")).disasmCommand(),
  run: async () => (await import("./run.ts")).runCommand(),
  verify: async () => (await import("./verify.ts")).verifyCommand(),
  new: async () => (await import("./new.ts")).newCommand(),
  dev: async () => (await import("./dev.ts")).devCommand(),
  test: async () => (await import("./test.ts")).testCommand(),
  backend: async () => (await import("./backend.ts")).backendCommand(),
  drive: async () => (await import("./drive.ts")).driveCommand(),
};

/**
 * Never rejects.
 * @param worker of a NIC, when one is loading already
 * @returns the exit status; a command that succeeds may have set `process.exitCode` instead
 */
export async function runCommandLine(
  words: readonly string[],
  version: string,
  worker?: WaitingWorker,
): Promise<number | undefined> {
  try {
    const command = await program(words[0], version, worker);
    await command.parseAsync(words, { from: "user" });
    return undefined;
  } catch (error) {
    if (!(error instanceof CommanderError)) return report(error);
    return error.exitCode === 0 ? undefined : STATUS.usage;
  }
}

async function program(wanted: string | undefined, version: string, worker?: WaitingWorker) {
  const command = new Command("bpfhv")
    .description("a virtual NIC whose guest datapath is eBPF programs shipped by the host")
    .version(version);
  const group = wanted?.startsWith("set-") ? "set-" : wanted;
  const names =
    group !== undefined && Object.hasOwn(COMMANDS, group) ? [group] : Object.keys(COMMANDS);
  const commands = await Promise.all(names.map((name) => COMMANDS[name](worker)));
  for (const sub of commands.flat()) command.addCommand(sub);
  // Commander ends the process itself with 1 for usage errors; ours is 2.
  for (const each of [command, ...command.commands]) {
    each.exitOverride().configureOutput({ outputError: (text, write) => write(oneLine(text)) });
  }
  return command;
}

/** Commander's words in the form of ours: "error: unknown option '--x'\n(Did you mean …?)". */
function oneLine(text: string): string {
  const words = text
    .replace(/^error: /, "")
    .trim()
    .replaceAll("\n", " ");
  return `bpfhv: ${words} (add --help for the options)\n`;
}

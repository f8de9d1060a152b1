/** `bpfhv keep`: a server whose NICs survive its end. */
import { Command } from "commander";
import { Keeper } from "../control/keeper.ts";
import { failure, whole } from "../errors.ts";
import { exitWithoutThreads } from "../os/process.ts";
import { Lifetime } from "./lifetime.ts";
import { LOG_LEVELS, Log, type LogLevel } from "./log.ts";

interface Flags {
  readonly failures: number;
  readonly logLevel: LogLevel;
  readonly logJson: boolean;
}

const HELP = `
Without systemd:   bpfhv keep -- bpfhv serve --socket /run/vm1.sock --net tap:tap0

The server may crash, be killed, or be stopped (kill -TERM) for an update: it is started again at
once and goes on with the guests' NICs. QEMU and the guests need no help. A signal to bpfhv keep
itself ends both. See docs/keep.md; with systemd, use its descriptor store instead.`;

export function keepCommand(): Command {
  return new Command("keep")
    .description("run a server, and start it again with its NICs whenever it ends")
    .argument("<command...>", 'what to run; "serve …" stands for this bpfhv')
    .option(
      "--failures <n>",
      "give up after so many failures in a row",
      whole("--failures", 1, 1000),
      6,
    )
    .option("--log-level <level>", LOG_LEVELS.join(", "), "info")
    .option("--log-json", "log JSON even to a terminal", false)
    .addHelpText("after", HELP)
    .action((words: [string, ...string[]], flags: Flags) => keep(words, flags));
}

async function keep(words: [string, ...string[]], flags: Flags): Promise<void> {
  const log = new Log({ level: flags.logLevel, nic: "keep", json: flags.logJson });
  const life = new Lifetime();
  life.atEnd(() => log.close());
  // Its thread waits in a system call, and cannot be ended.
  process.once("exit", exitWithoutThreads);
  const keeper = new Keeper({
    command: words[0] === "serve" ? [process.execPath, process.argv[1], ...words] : words,
    failures: flags.failures,
    log: (level, text) => log[level](text),
  });
  life.atEnd(() => keeper.close());
  void life.asked.then(() => keeper.stop());
  try {
    const status = await keeper.run();
    life.end();
    process.exit(status);
  } catch (error) {
    throw failure(`cannot run ${words[0]}: ${(error as Error).message}`);
  } finally {
    life.end();
  }
}

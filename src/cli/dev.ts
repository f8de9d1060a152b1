/** `bpfhv dev`: a ring format in a running guest, replaced whenever its file is saved. */
import { existsSync } from "node:fs";
import { resolve } from "node:path";
import { Command } from "commander";
import { validQueueBufs } from "../abi/index.ts";
import { failure, Usage, whole } from "../errors.ts";
import { Session } from "./dev/session.ts";
import { LocalTarget, ServedTarget } from "./dev/target.ts";
import { Lifetime } from "./lifetime.ts";

interface DevFlags {
  readonly bufs: number;
  readonly socket?: string;
  readonly json: boolean;
}

export function devCommand(): Command {
  return new Command("dev")
    .description("run a ring format under load, and replace it in the running guest on each save")
    .argument("<file>", "a TypeScript module whose default export `defineNic` made")
    .option("--bufs <n>", "buffers per queue: a power of two", whole("--bufs", 16, 8192), 256)
    .option("--socket <path>", "replace it in the NIC that is served there instead")
    .option("--json", "one event per line, as JSON", false)
    .addHelpText(
      "after",
      "\nWithout --socket, a guest's driver in this process sends and receives numbered packets at\n" +
        "half of a core's time. What does not compile, is refused by the verifier, or loses a packet\n" +
        "in a trial of its own is reported with its line, and the NIC of before carries on.\n" +
        "The exit status is 1 if a packet was lost, repeated or damaged.",
    )
    .action((file: string, flags: DevFlags) => dev(file, flags));
}

async function dev(file: string, { bufs, socket, json }: DevFlags): Promise<void> {
  const path = resolve(file);
  if (!/\.m?ts$/.test(path)) throw new Usage(`${file}: give a TypeScript file (./my-nic.ts)`);
  if (!existsSync(path)) throw failure(`${file} is not there: bpfhv new writes a start`);
  if (!validQueueBufs(bufs)) throw new Usage(`--bufs ${bufs}: use a power of two`);
  const life = new Lifetime();
  const makeTarget = () =>
    socket === undefined ? new LocalTarget() : new ServedTarget(socket, path);
  const session = new Session({
    ...{ path, sizes: { rxBufs: bufs, txBufs: bufs }, json, makeTarget },
  });
  session.start();
  try {
    await Promise.race([life.asked, session.failed]);
  } catch (error) {
    // Why it failed matters more than what it had lost by then.
    await session.stop().catch(() => {});
    throw error;
  } finally {
    life.end();
  }
  await session.stop();
}

/** `bpfhv serve`: the NICs of one virtual machine, until Ctrl-C. */
import { writeFileSync } from "node:fs";
import { Command } from "commander";
import { Events } from "../control/events.ts";
import { NicFailed, type NicOptions } from "../control/handle.ts";
import { NicGroup } from "../control/nic-group.ts";
import { nicOptions } from "../control/nic-options.ts";
import { NicService } from "../control/nic-service.ts";
import type { Served } from "../control/routes.ts";
import type { NicSpec } from "../control/spec.ts";
import { nicWorker, type WaitingWorker } from "../control/waiting-worker.ts";
import type { RingFormat } from "../devices/format.ts";
import { failure, Usage } from "../errors.ts";
import { mtuNotice } from "../nic/config.ts";
import { loadDevice } from "./device-option.ts";
import { Lifetime } from "./lifetime.ts";
import { LOG_LEVELS, Log } from "./log.ts";
import { type Account, dropTo, prepareToDrop, removeIfAllowed } from "./privileges.ts";
import { addServeOptions, type ServeFlags, specsOf } from "./serve-options.ts";
import { socketAccess } from "./socket-access.ts";
import { version } from "./version.ts";

/** @param worker is loading already, if there is one */
export function serveCommand(worker?: WaitingWorker): Command {
  const command = new Command("serve").description(
    "serve one NIC, or several, to one virtual machine over vfio-user sockets",
  );
  return addServeOptions(command).action(async (flags: ServeFlags) => {
    if (!LOG_LEVELS.includes(flags.logLevel)) {
      throw new Usage(`unknown log level "${flags.logLevel}": use ${LOG_LEVELS.join(", ")}`);
    }
    const specs = await specsOf(command, flags);
    const tasks: Task[] = [];
    for (const spec of specs) {
      const loaded = await loadDevice(spec.device);
      tasks.push({ spec, format: loaded.format, task: nicOptions(spec, loaded) });
    }
    await serve(tasks, flags, worker ?? nicWorker());
  });
}

interface Task {
  readonly spec: NicSpec;
  readonly format: RingFormat;
  readonly task: NicOptions;
}

interface Serving {
  readonly group: NicGroup<NicService>;
  readonly flags: ServeFlags;
  readonly account: Account | undefined;
  readonly log: Log;
  readonly life: Lifetime;
  readonly served: Served;
}

async function serve(tasks: readonly Task[], flags: ServeFlags, worker: WaitingWorker) {
  const account = prepareToDrop(flags.user);
  const access = socketAccess(flags, account?.uid);
  const [{ spec: first }] = tasks;
  const log = new Log({ level: flags.logLevel, nic: first.socket, json: flags.logJson });
  const life = new Lifetime();
  life.atEnd(() => log.close());
  const events = new Events();
  const nics = tasks.map(({ spec, format, task }, n) => {
    const nicLog = log.of(spec.socket);
    const nic = new NicService({
      ...{ spec, format, task, worker: n === 0 ? worker : nicWorker(), access, events, version },
      ...{ losesRights: account !== undefined, log: (level, text) => nicLog[level](text) },
    });
    life.atEnd(() => nic.close());
    return nic;
  });
  const group = new NicGroup(nics, (nic, { message }) => {
    nic.nic.failure = message;
    if (nics.length > 1) nic.say("warn", `the NIC has failed: ${message}`);
    events.publish("ended", nic.spec.name, { error: message });
  });
  void life.asked.then((signal) => {
    log.info(`${signal}: stopping`);
    return group.stop();
  });
  const served: Served = { version, events, nics: () => nics.map(({ nic }) => nic) };
  try {
    await run({ group, flags, account, log, life, served });
    log.info("stopped");
  } catch (error) {
    throw error instanceof NicFailed ? failure(error.message) : error;
  } finally {
    await group.stop();
    life.end();
  }
}

/** Serves until the last NIC has ended. @throws Error if any has failed */
async function run({ group, flags, account, log, life, served }: Serving): Promise<void> {
  await group.each((nic) => nic.start());
  // All have failed, or were asked to stop at once.
  if (group.running.length === 0) return group.ended;
  if (flags.pidFile !== undefined) writePid(flags.pidFile, life);
  await group.each((nic) => nic.prove());
  if (group.running.length === 0) return group.ended;
  if (account !== undefined) await Promise.all(group.running.map((nic) => nic.loadApi()));
  // Not before: the compiler reads files that the other user may not read. Clients are accepted
  // after it.
  dropTo(account, (text) => log.warn(text));
  life.followNpx();
  await group.each((nic) => letIn(nic, served));
  await group.ended;
}

async function letIn(nic: NicService, served: Served): Promise<void> {
  const proof = await nic.ship();
  if (proof !== "proved") nic.say("warn", `programs ${proof}`);
  const notice = mtuNotice(nic.spec.maxMtu);
  if (notice !== null) nic.say("warn", notice);
  const { device, socket, port } = nic.spec;
  nic.say("info", `${device} on ${socket}, packets to ${port}: waiting for QEMU`);
  await nic.openApi(served);
}

function writePid(path: string, life: Lifetime): void {
  try {
    writeFileSync(path, `${process.pid}`);
  } catch (error) {
    throw failure(`cannot write the pid file: ${(error as Error).message}`);
  }
  life.atEnd(() => removeIfAllowed(path));
}

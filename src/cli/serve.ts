/** `bpfhv serve`: the NICs of one virtual machine, until Ctrl-C. */
import { readFileSync, writeFileSync } from "node:fs";
import { Command } from "commander";
import { Events } from "../control/events.ts";
import { HandOver } from "../control/hand-over.ts";
import { NicFailed, type NicOptions } from "../control/handle.ts";
import type { KeptServer, SetFields } from "../control/kept-server.ts";
import { NicGroup } from "../control/nic-group.ts";
import { nicOptions } from "../control/nic-options.ts";
import { NicService, type WantedNic } from "../control/nic-service.ts";
import type { Served } from "../control/routes.ts";
import type { NicSpec } from "../control/spec.ts";
import type { NicSource } from "../control/take-over.ts";
import { nicWorker, type WaitingWorker } from "../control/waiting-worker.ts";
import type { RingFormat } from "../devices/format.ts";
import { failure, Usage } from "../errors.ts";
import { mtuNotice, offeredFeatures } from "../nic/config.ts";
import { loadDevice } from "./device-option.ts";
import { Lifetime } from "./lifetime.ts";
import { LOG_LEVELS, Log } from "./log.ts";
import { type Account, dropTo, prepareToDrop, removeIfAllowed } from "./privileges.ts";
import { addServeOptions, refuseOthers, type ServeFlags, specsOf } from "./serve-options.ts";
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
    const kept = await keptServer(flags);
    const source = kept?.source ?? (await otherServer(command, flags));
    if (source !== undefined) enter(source);
    const wanted = source?.nics ?? (await specsOf(command, flags)).map((spec) => ({ spec }));
    const tasks: Task[] = [];
    for (const each of wanted) tasks.push(await taskOf(each, kept, tasks.length));
    await serve(tasks, { flags, source, kept }, worker ?? nicWorker());
  });
}

/** What keeps this server's NICs over its end; null: nothing does. */
async function keptServer({ logLevel, logJson: json }: ServeFlags): Promise<KeptServer | null> {
  if (process.env.NOTIFY_SOCKET === undefined) return null;
  const { KeptServer } = await import("../control/kept-server.ts");
  const log = new Log({ level: logLevel, nic: "", json });
  try {
    return KeptServer.find(process.env, (level, text) => log[level](text));
  } finally {
    log.close();
  }
}

/** The server whose NICs are taken over. @throws CommandError */
async function otherServer(command: Command, flags: ServeFlags): Promise<NicSource | undefined> {
  if (flags.takeOver === undefined) return undefined;
  refuseOthers(command, flags);
  const { TakeOver } = await import("../control/take-over.ts");
  return TakeOver.begin(flags.takeOver);
}

/** Paths in specs are relative to it. */
function enter({ cwd }: NicSource): void {
  try {
    process.chdir(cwd);
  } catch (error) {
    throw failure(`cannot enter the other server's folder: ${(error as Error).message}`);
  }
}

type Wanted = Partial<WantedNic> & { readonly spec: NicSpec };

/** @param n its place among the NICs */
async function taskOf(wanted: Wanted, kept: KeptServer | null, n: number): Promise<Task> {
  const { next = null } = wanted;
  const source = kept?.source ?? null;
  const task = await taskFor(wanted.spec, wanted.metadata);
  if (next === null || source === null) return task;
  if (source.isReplacing(n)) return { ...task, next };
  return source.isOf(n, setOf(task)) ? task : taskFor(next, wanted.metadata);
}

async function taskFor(spec: NicSpec, metadata: boolean | undefined): Promise<Task> {
  const loaded = await loadDevice(spec.device);
  const task = nicOptions(spec, loaded);
  const { format } = loaded;
  if (metadata === undefined) return { spec, format, task };
  // A port that was opened for packets without metadata has no room for it.
  const nic = metadata ? task.nic : { ...task.nic, features: 0 };
  return { spec, format, task: { ...task, nic, metadata } };
}

function setOf({ format, task: { nic } }: Task): SetFields {
  const { rxBufs, txBufs } = nic;
  const features = offeredFeatures({ ...nic, device: format });
  return { format: format.name, rxBufs, txBufs, features };
}

interface Task {
  /** The guest is moving on to the set of this one. */
  readonly next?: NicSpec;
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
  readonly source: NicSource | undefined;
  readonly kept: KeptServer | null;
  /** What the NICs are to be, for after a crash. */
  readonly saves: () => void;
  /** Sets that guests are moving on to. */
  readonly nextOf: ReadonlyMap<NicService, NicSpec>;
}

interface Start {
  readonly flags: ServeFlags;
  readonly source: NicSource | undefined;
  readonly kept: KeptServer | null;
}

async function serve(tasks: readonly Task[], start: Start, worker: WaitingWorker): Promise<void> {
  const { flags, source, kept } = start;
  const account = prepareToDrop(flags.user);
  const access = socketAccess(flags, account?.uid);
  const [{ spec: first }] = tasks;
  const log = new Log({ level: flags.logLevel, nic: first.socket, json: flags.logJson });
  const life = new Lifetime();
  life.atEnd(() => log.close());
  const events = new Events();
  const nics: NicService[] = tasks.map(({ spec, format, task }, n) => {
    const nicLog = log.of(spec.socket);
    const nic = new NicService({
      ...{ spec, format, task, worker: n === 0 ? worker : nicWorker(), access, events, version },
      ...{ takesOver: source !== undefined, losesRights: account !== undefined },
      ...{ log: (level, text) => nicLog[level](text) },
      ...(kept && {
        kept: kept.taskOf(n),
        listens: (fd, file) => kept.controls(n, fd, file),
        changes: () => kept.save(nics),
      }),
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
    // SIGINT is Ctrl-C, and how `bpfhv keep` stops for good.
    if (kept === null || signal === "SIGINT") return stop(group, kept, nics.length);
    return leave(group);
  });
  const handOver = new HandOver({
    ...{ nics: () => group.running, version, log: (level, text) => log[level](text) },
    left: () => {
      kept?.forget(nics.length);
      for (const nic of group.running) void handedOver(nic, kept);
    },
  });
  const served: Served = {
    ...{ version, events, nics: () => nics.map(({ nic }) => nic) },
    takeOver: (fd) => void handOver.serve(fd),
  };
  try {
    const saves = () => kept?.save(nics);
    const nextOf = new Map<NicService, NicSpec>();
    for (const [n, { next }] of tasks.entries()) if (next !== undefined) nextOf.set(nics[n], next);
    await run({ group, flags, account, log, life, served, source, kept, saves, nextOf });
    log.info("stopped");
  } catch (error) {
    throw error instanceof NicFailed ? failure(error.message) : error;
  } finally {
    await group.stop();
    life.end();
  }
}

async function stop(group: NicGroup<NicService>, kept: KeptServer | null, nics: number) {
  await group.stop();
  kept?.forget(nics);
}

/** Leaves the NICs to the process that the keeper starts next. */
async function leave(group: NicGroup<NicService>): Promise<void> {
  const each = async (nic: NicService): Promise<void> => {
    await nic.freeze();
    await nic.leave();
  };
  await Promise.all(group.running.map((nic) => each(nic).catch(() => nic.stop())));
}

async function handedOver(nic: NicService, kept: KeptServer | null): Promise<void> {
  if (kept !== null) await nic.forget().catch(() => {});
  await nic.leave().catch(() => {});
}

/** Serves until the last NIC has ended. @throws Error if any has failed */
async function run(serving: Serving): Promise<void> {
  const { group, flags, account, log, life, served, source, kept } = serving;
  await group.each((nic) => nic.start());
  // All have failed, or were asked to stop at once.
  if (group.running.length === 0) return group.ended;
  if (source === undefined) writePid(flags, life);
  await group.each((nic) => nic.prove());
  if (group.running.length === 0) return group.ended;
  if (account !== undefined) await Promise.all(group.running.map((nic) => nic.loadApi()));
  // Not before: the compiler reads files that the other user may not read. Clients are accepted
  // after it.
  dropTo(account, (text) => log.warn(text));
  life.followNpx();
  if (source === undefined) await group.each((nic) => letIn(nic, served));
  else await goOn(source, serving);
  serving.saves();
  kept?.ready();
  await group.ended;
}

/** With NICs of another server. If any cannot be taken over, none is. @throws CommandError */
async function goOn(
  source: NicSource,
  { group, flags, life, served, nextOf }: Serving,
): Promise<void> {
  const nics = group.running;
  await group.each(async (nic) => {
    await nic.ship();
    const next = nextOf.get(nic);
    if (next !== undefined) await nic.prepareNext(next);
  });
  if (nics.length < source.nics.length || group.running.length < nics.length) {
    await source.fail("a NIC has failed in the new server");
    return group.ended;
  }
  const { takeOver } = await import("../control/take-over.ts");
  await takeOver(source, nics);
  writePid(flags, life);
  for (const nic of nics) nic.say("info", `${nic.spec.device} on ${nic.spec.socket}: taken over`);
  await group.each((nic) => nic.openApi(served));
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

function writePid({ pidFile: path }: ServeFlags, life: Lifetime): void {
  if (path === undefined) return;
  try {
    writeFileSync(path, `${process.pid}`);
  } catch (error) {
    throw failure(`cannot write the pid file: ${(error as Error).message}`);
  }
  life.atEnd(() => {
    // A server that took the NICs over may have written its own.
    if (isOwnPid(path)) removeIfAllowed(path);
  });
}

function isOwnPid(path: string): boolean {
  try {
    return readFileSync(path, "utf8") === `${process.pid}`;
  } catch {
    return false;
  }
}

/** `bpfhv serve`: one NIC for one virtual machine, until Ctrl-C. */
import { writeFileSync } from "node:fs";
import { resolve } from "node:path";
import { Command, Option } from "commander";
import { MAX_QUEUE_PAIRS, PCI_DEVICE, PCI_DEVICE_ORIGINAL } from "../abi/index.ts";
import { NicFailed, type NicOptions, WorkerHandle } from "../control/handle.ts";
import { nicWorker, type WaitingWorker } from "../control/waiting-worker.ts";
import type { RingFormat } from "../devices/format.ts";
import { DEFAULT_FORMAT } from "../devices/registry.ts";
import { DEFAULT_SPIN_US } from "../engine/loop.ts";
import { failure, Usage, whole } from "../errors.ts";
import { isOffloadWord, OFFLOAD_WORDS, offloadFeatures } from "../memory/offloads.ts";
import { PORT_KINDS, PortSpecError, parsePort } from "../net/create.ts";
import { ANTI_SPOOF_HELP, antiSpoof } from "../net/policies/spoof-guard.ts";
import {
  ConfigError,
  checkConfig,
  DEFAULT_BUFS,
  MAX_MTU,
  MIN_MTU,
  mtuNotice,
  parseMac,
} from "../nic/config.ts";
import type { NicStatus } from "../nic/status.ts";
import { removeSocket, type SocketAccess, socketInode } from "../os/unix-socket.ts";
import { type ControlCommands, ControlServer } from "./control-server.ts";
import { DEVICE_WORDS, type LoadedDevice, loadDevice } from "./device-option.ts";
import { Lifetime } from "./lifetime.ts";
import { LOG_LEVELS, Log, type LogLevel } from "./log.ts";
import { machineMac } from "./mac.ts";
import { type Account, dropTo, prepareToDrop, removeIfAllowed } from "./privileges.ts";
import { SOCKET_GROUP, SOCKET_MODE, socketAccess } from "./socket-access.ts";
import { requireShort } from "./socket-path.ts";
import { version } from "./version.ts";

interface ServeFlags {
  socket: string;
  device: string;
  net: string;
  offloads?: string;
  mac?: string;
  antiSpoof?: string;
  bufs: number;
  rxBufs?: number;
  txBufs?: number;
  queues: number;
  mtu: number;
  speed: number;
  interrupts: "msix" | "msi";
  spin: number;
  logLevel: LogLevel;
  logJson: boolean;
  pidFile?: string;
  user?: string;
  socketGroup?: string;
  socketMode?: string;
  originalId: boolean;
  answerDelay: number;
  allowUnverified: boolean;
  allowUnsealed: boolean;
}

/** As a TAP interface of the host says; without one, bonds do not aggregate links (802.3ad). */
const DEFAULT_SPEED = 10_000;
/** The fastest that Linux has a name for (uapi/linux/ethtool.h, SPEED_800000). */
const MAX_SPEED = 800_000;
/** A tenth of a second: longer, and a core is burnt for no packet. */
const MAX_SPIN_US = 100_000;
/** QEMU gives up after five. */
const lateness = whole("--answer-delay", 0, 4000);
const bufs = (option: string) => whole(option, 16, 8192);

/** @param worker is loading already, where there is one */
export function serveCommand(worker?: WaitingWorker): Command {
  return new Command("serve")
    .description("serve one NIC to one virtual machine over a vfio-user socket")
    .requiredOption("--socket <path>", "UNIX socket that QEMU's vfio-user-pci connects to")
    .option("--device <name>", DEVICE_WORDS, DEFAULT_FORMAT)
    .option("--net <port>", `where packets go: ${PORT_KINDS}`, "sink")
    .option("--offloads <list>", `offered to the guest: ${OFFLOADS} (default: all the device has)`)
    .option("--mac <address>", "MAC address (default: from machine and socket's path)")
    .option("--anti-spoof <rules>", ANTI_SPOOF_HELP)
    .option(
      "--bufs <n>",
      "buffers per queue: a power of two, 16 to 8192",
      bufs("--bufs"),
      DEFAULT_BUFS,
    )
    .option("--rx-bufs <n>", "buffers per receive queue", bufs("--rx-bufs"))
    .option("--tx-bufs <n>", "buffers per transmit queue", bufs("--tx-bufs"))
    .option("--queues <n>", "queue pairs, 1 to 8", whole("--queues", 1, MAX_QUEUE_PAIRS), 1)
    .option(
      "--mtu <bytes>",
      "largest MTU that the guest may use; without Ethernet header and VLAN tags",
      whole("--mtu", MIN_MTU, MAX_MTU),
      1500,
    )
    .addOption(
      new Option("--interrupts <kind>", "msi: slower, but QEMU can unplug the NIC (docs/qemu.md)")
        .choices(["msix", "msi"])
        .default("msix"),
    )
    .option(
      "--speed <mbps>",
      "link speed that the guest reports, in Mb/s; 0: unknown",
      whole("--speed", 0, MAX_SPEED),
      DEFAULT_SPEED,
    )
    .option(
      "--spin <us>",
      "longest spin before sleeping, in microseconds",
      whole("--spin", 0, MAX_SPIN_US),
      DEFAULT_SPIN_US,
    )
    .option("--log-level <level>", LOG_LEVELS.join(", "), "info")
    .option("--log-json", "log JSON even to a terminal", false)
    .option("--pid-file <path>", "write the process id here; removed at the end")
    .option("--user <name>", "run as this user once TAP and sockets are open")
    .option("--socket-group <group>", SOCKET_GROUP)
    .option("--socket-mode <mode>", SOCKET_MODE)
    .option("--original-id", "use the original's PCI id (1b36:000e) instead of ours", false)
    .option("--allow-unverified", "ship programs even where the verifier refuses them", false)
    .option("--allow-unsealed", "also use guest RAM in files that QEMU could shrink", false)
    .option("--answer-delay <ms>", "answer the VMM this late (for tests)", lateness, 0)
    .action((flags: ServeFlags) => serve(flags, worker ?? nicWorker()));
}

const NO_OFFLOADS = "none";
const OFFLOADS = [NO_OFFLOADS, ...Object.keys(OFFLOAD_WORDS)].join(",");

/** @throws Usage */
export function parseOffloads(list: string): number {
  if (list === NO_OFFLOADS) return 0;
  const words = list.split(",");
  if (words.includes(NO_OFFLOADS)) throw new Usage(`--offloads ${list}: none stands alone`);
  return offloadFeatures(
    words.map((word) => {
      if (isOffloadWord(word)) return word;
      throw new Usage(`unknown offload "${word}": there are ${OFFLOADS}`);
    }),
  );
}

/** @throws Usage */
function nicOptions(flags: ServeFlags, { device, format }: LoadedDevice): NicOptions {
  if (!LOG_LEVELS.includes(flags.logLevel)) {
    throw new Usage(`unknown log level "${flags.logLevel}": use ${LOG_LEVELS.join(", ")}`);
  }
  requireShort("--socket", flags.socket);
  try {
    const port = parsePort(flags.net);
    const nic = {
      pairs: flags.queues,
      rxBufs: flags.rxBufs ?? flags.bufs,
      txBufs: flags.txBufs ?? flags.bufs,
      mac: flags.mac === undefined ? machineMac(resolve(flags.socket)) : parseMac(flags.mac),
      mtu: flags.mtu,
      linkSpeed: flags.speed,
      doorbellSize: 8,
      ...(flags.offloads === undefined ? {} : { features: parseOffloads(flags.offloads) }),
    };
    checkConfig({ ...nic, device: format });
    return {
      device,
      nic,
      port,
      socketPath: flags.socket,
      interrupts: flags.interrupts,
      pciDevice: flags.originalId ? PCI_DEVICE_ORIGINAL : PCI_DEVICE,
      spinUs: flags.spin,
      answerDelayMs: flags.answerDelay,
      allowUnsealed: flags.allowUnsealed,
      ...(flags.antiSpoof === undefined
        ? {}
        : { policies: [antiSpoof.parse(flags.antiSpoof, nic)] }),
    };
  } catch (error) {
    if (error instanceof ConfigError || error instanceof PortSpecError)
      throw new Usage(error.message);
    throw error;
  }
}

/** What the NIC ships, and what `status` says of it. @throws CommandError where it must not be shipped */
async function proved(format: RingFormat, { nic }: NicOptions, allowUnverified: boolean) {
  // Compiler and verifier are loaded, and run, while the worker comes up.
  const [{ proofOf, proveInTurns, UnprovedError }, { programSets }] = await Promise.all([
    import("../devices/proof.ts"),
    import("../devices/program-set.ts"),
  ]);
  try {
    const proof = proofOf(format, await proveInTurns(format, nic), allowUnverified);
    return { sets: programSets(format, nic), proof };
  } catch (error) {
    throw error instanceof UnprovedError ? failure(error.message) : error;
  }
}

async function serve(flags: ServeFlags, worker: WaitingWorker): Promise<void> {
  const loaded = await loadDevice(flags.device);
  const { format } = loaded;
  const options = nicOptions(flags, loaded);
  const account = prepareToDrop(flags.user);
  const access = socketAccess(flags, account?.uid);
  const log = new Log({ level: flags.logLevel, nic: flags.socket, json: flags.logJson });
  const life = new Lifetime();
  life.atEnd(() => log.close());
  const nic = new WorkerHandle({
    name: flags.socket,
    task: { ...options, access, losesRights: account !== undefined },
    worker,
    log: (level, text) => log[level](text),
  });
  void life.asked.then((signal) => {
    log.info(`${signal}: stopping`);
    return nic.stop().catch(() => {});
  });
  try {
    await run(flags, { format, options, account, access, log, life, nic });
    log.info("stopped");
  } catch (error) {
    throw error instanceof NicFailed ? failure(error.message) : error;
  } finally {
    await nic.stop().catch(() => {});
    life.end();
  }
}

interface Serving {
  readonly format: RingFormat;
  readonly options: NicOptions;
  readonly account: Account | undefined;
  readonly access: SocketAccess;
  readonly log: Log;
  readonly life: Lifetime;
  readonly nic: WorkerHandle;
}

async function run(
  flags: ServeFlags,
  { format, options, account, access, log, life, nic }: Serving,
): Promise<void> {
  const proving = proved(format, options, flags.allowUnverified);
  // Looked at below.
  proving.catch(() => {});
  await nic.started();
  // Asked to stop at once.
  if (nic.hasEnded) return;
  removeSocketAtEnd(life, nic, flags.socket);
  const control = new ControlServer(
    flags.socket,
    controlCommands(flags, nic, log, proving),
    access,
  );
  life.atEnd(() => control.close());
  if (flags.pidFile !== undefined) writePid(flags.pidFile, life);
  const shipped = await Promise.race([proving, nic.ended]);
  if (shipped === undefined) return;
  const { sets, proof } = shipped;
  // Not before: the compiler reads files that the other user may not read. And clients are let in
  // after it.
  dropTo(account, (text) => log.warn(text));
  life.followNpx();
  await Promise.race([nic.request("ship", sets), nic.ended]);
  if (nic.hasEnded) return;
  if (proof !== "proved") log.warn(`programs ${proof}`);
  const notice = mtuNotice(flags.mtu);
  if (notice !== null) log.warn(notice);
  log.info(`${flags.device} on ${flags.socket}, packets to ${flags.net}: waiting for QEMU`);
  await nic.ended;
}

/** The worker does it, unless it dies. */
function removeSocketAtEnd(life: Lifetime, nic: WorkerHandle, path: string): void {
  let inOrder = false;
  void nic.ended.then(
    () => {
      inOrder = true;
    },
    () => {},
  );
  const inode = socketInode(path);
  life.atEnd(() => {
    if (!inOrder) removeSocket(path, inode);
  });
}

function writePid(path: string, life: Lifetime): void {
  try {
    writeFileSync(path, `${process.pid}`);
  } catch (error) {
    throw failure(`cannot write the pid file: ${(error as Error).message}`);
  }
  life.atEnd(() => removeIfAllowed(path));
}

function controlCommands(
  flags: ServeFlags,
  nic: WorkerHandle,
  log: Log,
  proving: Promise<{ readonly proof: string }>,
): ControlCommands {
  const status = async () => ({
    ...{ pid: process.pid, socket: resolve(flags.socket), version },
    ...{ interrupts: flags.interrupts, allowUnsealed: flags.allowUnsealed },
    ...{ uptimeSeconds: Math.floor(process.uptime()), proof: (await proving).proof },
    ...(await nic.request<NicStatus>("status")),
  });
  return {
    status,
    "set-port": async ({ net }) => {
      await nic.request("set-port", parsePort(`${net}`));
      log.info(`packets to ${net} from here on`);
      return status();
    },
    "set-mtu": async ({ mtu }) => {
      await nic.request("set-mtu", Number(mtu));
      log.info(`MTU ${mtu} from here on`);
      return status();
    },
  };
}

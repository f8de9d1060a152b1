/**
 * `bpfhv backend`: serves the queues of the original QEMU fork's NIC, over its bpfhv-proxy
 * protocol.
 */
import { resolve } from "node:path";
import { Command, Option } from "commander";
import { ControlSocket } from "../control/control-socket.ts";
import { Events } from "../control/events.ts";
import { type BackendOptions, NicFailed, WorkerHandle } from "../control/handle.ts";
import { completeSpec } from "../control/read-spec.ts";
import { RunningNic } from "../control/running-nic.ts";
import { requireShort } from "../control/socket-path.ts";
import { type NicSpec, rateOf } from "../control/spec.ts";
import { backendWorker } from "../control/waiting-worker.ts";
import { DEFAULT_FORMAT, withOffloads } from "../devices/registry.ts";
import { DEFAULT_SPIN_US } from "../engine/loop.ts";
import { failure, Usage, whole } from "../errors.ts";
import {
  isOffloadWord,
  OFFLOAD_WORDS,
  type OffloadWord,
  offloadFeatures,
} from "../memory/offloads.ts";
import { type PortSpec, PortSpecError, parsePort } from "../net/create.ts";
import type { PolicySpec } from "../net/policies/index.ts";
import { RATE_USAGE } from "../net/policies/rate-limit.ts";
import { ANTI_SPOOF_HELP, antiSpoof } from "../net/policies/spoof-guard.ts";
import { formatMac } from "../nic/config.ts";
import type { SocketAccess } from "../os/unix-socket.ts";
import { DEVICE_WORDS, loadDevice } from "./device-option.ts";
import { Lifetime } from "./lifetime.ts";
import { LineWriter } from "./line-writer.ts";
import { Log } from "./log.ts";
import { PidFile } from "./pid-file.ts";
import { dropTo, prepareToDrop } from "./privileges.ts";
import { SOCKET_GROUP, SOCKET_MODE, socketAccess } from "./socket-access.ts";
import { removeTap, setUpTap } from "./tap-setup.ts";
import { version } from "./version.ts";

export interface BackendFlags {
  path: string;
  pidFile?: string;
  interface: string;
  backend: string;
  device: string;
  offloads: OffloadWord[];
  csum: boolean;
  gso: boolean;
  busyWait: boolean;
  adaptive: boolean;
  stats: boolean;
  sleep: number;
  verbose: number;
  antiSpoof?: string;
  rate: string;
  reconnect: boolean;
  allowUnverified: boolean;
  allowUnsealed: boolean;
  createTap: boolean;
  tapAddress?: string;
  netns?: string;
  user?: string;
  socketGroup?: string;
  socketMode?: string;
  logJson: boolean;
}

const pause = whole("--sleep", 0, 1000);
const OFFLOADS = Object.keys(OFFLOAD_WORDS) as OffloadWord[];
/** `-C`; `-G` stands for all. */
const CHECKSUMS: readonly OffloadWord[] = ["txcsum", "rxcsum"];

export function backendCommand(): Command {
  return new Command("backend")
    .description("serve a NIC of the original QEMU fork (-netdev bpfhv-proxy)")
    .requiredOption("-p, --path <socket>", "UNIX socket that QEMU listens on")
    .option("-P, --pid-file <file>", "write the process id here; a backend that runs is replaced")
    .option("-i, --interface <name>", "TAP interface", "tapx")
    .option("-b, --backend <type>", "tap, or another port (see `bpfhv serve --help`)", "tap")
    .option("-d, --device <type>", DEVICE_WORDS, DEFAULT_FORMAT)
    .option("-O, --offloads <list>", `comma list of ${OFFLOADS.join(", ")}`, offloadList, [])
    .option("-C, --csum", "offload checksums: txcsum and rxcsum", false)
    .option("-G, --gso", "all offloads", false)
    .addOption(
      new Option("-B, --busy-wait", "never sleep, and ask for no kicks at all")
        .default(false)
        .conflicts("adaptive"),
    )
    .option("--adaptive", "spin before sleeping, as long as that pays", false)
    .option("-S, --stats", "print rates every 2 s", false)
    .option("-u, --sleep <us>", "pause in every turn, 0 to 1000 microseconds", pause, 0)
    .option("-v, --verbose", "say more; twice: every kick, interrupt and queue dump", count, 0)
    .option("--anti-spoof <rules>", ANTI_SPOOF_HELP)
    .option("--rate <limits>", `rate limits: ${RATE_USAGE}`, "none")
    .option("--reconnect", "wait for QEMU, and connect again when it goes away", false)
    .option("--allow-unverified", "ship programs even if the verifier refuses them", false)
    .option("--allow-unsealed", "also use guest RAM in files that QEMU could shrink", false)
    .option("--create-tap", "make the TAP interface, and remove it at the end", false)
    .option("--tap-address <address/bits>", "address of the TAP interface that is made")
    .option("--netns <name>", "network namespace of the TAP interface")
    .addOption(
      new Option("--user <name>", "run as this user once TAP and sockets are open").conflicts(
        "createTap",
      ),
    )
    .option("--socket-group <group>", SOCKET_GROUP)
    .option("--socket-mode <mode>", SOCKET_MODE)
    .option("--log-json", "log JSON even to a terminal", false)
    .action((flags: BackendFlags) => backend(flags));
}

function count(_value: string, before: number): number {
  return before + 1;
}

function offloadList(text: string, before: OffloadWord[]): OffloadWord[] {
  return [
    ...before,
    ...text.split(",").map((word) => {
      if (isOffloadWord(word)) return word;
      throw new Usage(`unknown offload "${word}": there are ${OFFLOADS.join(", ")}`);
    }),
  ];
}

/** @throws Usage */
async function workerOptions(flags: BackendFlags): Promise<BackendOptions> {
  requireShort("--path", flags.path);
  if (flags.createTap && flags.backend !== "tap") throw new Usage("--create-tap goes with -b tap");
  if (flags.tapAddress !== undefined && !flags.createTap) {
    throw new Usage("--tap-address goes with --create-tap");
  }
  return {
    ...(await deviceOf(flags)),
    port: portOf(flags),
    path: flags.path,
    reconnect: flags.reconnect,
    allowUnverified: flags.allowUnverified,
    allowUnsealed: flags.allowUnsealed,
    spinUs: flags.busyWait ? Number.POSITIVE_INFINITY : flags.adaptive ? DEFAULT_SPIN_US : 0,
    pauseUs: flags.sleep,
    statistics: flags.stats,
    verbosity: flags.verbose,
    policies: policiesOf(flags),
    rate: orUsage(() => rateOf(flags.rate)),
  };
}

async function deviceOf(flags: BackendFlags): Promise<{ device: string; features: number }> {
  const offloads = new Set<OffloadWord>(flags.offloads);
  for (const offload of flags.gso ? OFFLOADS : flags.csum ? CHECKSUMS : []) offloads.add(offload);
  const name = offloads.size > 0 ? withOffloads(flags.device) : flags.device;
  const { device, format } = await loadDevice(name);
  return { device, features: format.features & offloadFeatures(offloads) };
}

function portOf(flags: BackendFlags): PortSpec {
  if (flags.backend === "netmap") {
    throw new Usage("netmap is not supported: use tap, or another port (bpfhv serve --help)");
  }
  return orUsage(() => parsePort(portText(flags)));
}

function portText({ backend, interface: tap, netns }: BackendFlags): string {
  if (backend !== "tap") return backend;
  return `tap:${tap}${netns === undefined ? "" : `,netns=${netns}`},create`;
}

function policiesOf({ antiSpoof: rules }: BackendFlags): PolicySpec[] {
  return rules === undefined ? [] : [orUsage(() => antiSpoof.parse(rules, { mac: null }))];
}

/** @throws Usage in place of PortSpecError */
function orUsage<T>(parse: () => T): T {
  try {
    return parse();
  } catch (error) {
    throw error instanceof PortSpecError ? new Usage(error.message) : error;
  }
}

const STDOUT = 1;

async function backend(flags: BackendFlags): Promise<void> {
  const options = await workerOptions(flags);
  const account = prepareToDrop(flags.user);
  const access = socketAccess(flags, account?.uid);
  const level = flags.verbose > 0 ? "debug" : "warn";
  const log = new Log({ level, nic: flags.path, json: flags.logJson });
  const out = new LineWriter(STDOUT, (lost) => `${lost} lines are lost here\n`);
  // Before the pid file says whom to signal.
  const life = new Lifetime();
  life.atEnd(() => {
    out.close();
    log.close();
  });
  try {
    if (flags.pidFile !== undefined) {
      const pidFile = await PidFile.take(flags.pidFile);
      life.atEnd(() => pidFile.remove());
    }
    if (flags.createTap) {
      setUpTap(tapOf(flags));
      life.atEnd(() => removeTap(tapOf(flags)));
    }
    const spec = specOf(flags);
    const events = new Events();
    const worker = new WorkerHandle({
      name: flags.path,
      task: { ...options, losesRights: account !== undefined },
      worker: backendWorker(),
      log: (level, text) => {
        log[level](text);
        events.publish("log", spec.name, { level, text });
      },
      print: (text) => out.write(text),
    });
    const nic = runningNic(spec, worker, events);
    await run(worker, life, async () => {
      // Loads modules, which the other user may not read.
      await openApi(flags.path, nic, events, { access, life });
      dropTo(account, (text) => log.warn(text));
      life.followNpx();
    });
  } catch (error) {
    throw error instanceof NicFailed ? failure(error.message) : error;
  } finally {
    life.end();
  }
}

function tapOf({ interface: name, netns, tapAddress: address }: BackendFlags) {
  return { name, ...(netns ? { netns } : {}), ...(address ? { address } : {}) };
}

async function run(
  worker: WorkerHandle<BackendOptions>,
  life: Lifetime,
  opened: () => Promise<void>,
): Promise<void> {
  void life.asked.then(() => worker.stop()).catch(() => {});
  process.on("SIGUSR2", () => void worker.request("signal-upgrade").catch(() => {}));
  try {
    await worker.started();
    if (!worker.hasEnded) await opened();
    await worker.ended;
  } finally {
    await worker.stop().catch(() => {});
  }
}

/** What the API shows of it, in the terms of a NIC's spec. */
function specOf(flags: BackendFlags): NicSpec {
  const offloads = flags.gso ? OFFLOADS : [...flags.offloads, ...(flags.csum ? CHECKSUMS : [])];
  return completeSpec({
    ...{ socket: resolve(flags.path), device: flags.device, port: portText(flags), offloads },
    ...{ loop: flags.busyWait ? "busy" : "adaptive", spin: flags.adaptive ? DEFAULT_SPIN_US : 0 },
    ...{ allowUnverified: flags.allowUnverified, allowUnsealed: flags.allowUnsealed },
    policies: flags.antiSpoof === undefined ? [] : [`${antiSpoof.name}:${flags.antiSpoof}`],
    rate: flags.rate,
  });
}

function runningNic(spec: NicSpec, worker: WorkerHandle<BackendOptions>, events: Events) {
  return new RunningNic({
    spec,
    worker: {
      request: (verb, body) => {
        const problem = whyNot(verb, body, spec);
        if (problem === null) return worker.request(verb, body);
        return Promise.reject(failure(problem));
      },
    },
    process: async () => ({
      ...{ pid: process.pid, socket: spec.socket, version },
      uptimeSeconds: Math.floor(process.uptime()),
    }),
    replace: () => Promise.reject(failure("the hypervisor of a backend replaces its programs")),
    changed: (actions) => events.publish("changed", spec.name, { changed: actions }),
  });
}

/** @returns what a backend cannot do of what a NIC can; null: it can */
function whyNot(verb: string, body: unknown, { mac }: NicSpec): string | null {
  if (verb === "set-mtu") return "the original's protocol has no MTU: it is 1500";
  if (verb !== "set-policies") return null;
  // Of the VMM's NIC only the VMM knows the address; the spec's is made up.
  const unknown = (body as PolicySpec[]).some(
    (each) => each.kind === antiSpoof.name && formatMac(each.mac) === mac,
  );
  return unknown
    ? "anti-spoof: mac: the VMM does not tell the NIC's address: use mac=ADDRESS"
    : null;
}

/** Listens for clients of the API, and accepts them. */
async function openApi(
  path: string,
  nic: RunningNic,
  events: Events,
  { access, life }: { readonly access: SocketAccess; readonly life: Lifetime },
): Promise<void> {
  const socket = new ControlSocket(path, access);
  life.atEnd(() => socket.close());
  const { serveApi } = await import("../control/api.ts");
  if (socket.isClosed) return;
  const served = { version, events, nics: () => [nic] };
  const api = serveApi({ served, own: nic, socket });
  life.atEnd(() => api.close());
}

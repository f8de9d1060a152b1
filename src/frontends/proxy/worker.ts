/** The worker of one backend: port, rings, socket and loop on one thread (see ../nic-worker.ts). */
import { parentPort } from "node:worker_threads";
import { findDevice } from "../../devices/index.ts";
import { Loop } from "../../engine/loop.ts";
import { QueuePair } from "../../engine/pair.ts";
import type { SpoofRules } from "../../engine/spoof-guard.ts";
import type { PortSpec } from "../../net/create.ts";
import { emptyBoundingSet, forbidNewPrivileges } from "../../os/process.ts";
import { Complaints, counted, droppedIn, unsharedMemory } from "../complaints.ts";
import { LineLimit, limitedLog } from "../line-limit.ts";
import type { ToMain } from "../nic-messages.ts";
import { startPulse } from "../pulse.ts";
import { takeTask } from "../waiting-worker.ts";
import { WorkerControl } from "../worker-control.ts";
import { WorkerPorts } from "../worker-ports.ts";
import { BackendConnection } from "./connection.ts";
import { dumpQueues, proxyStatus, RateReport } from "./status.ts";

export interface ProxyWorkerOptions {
  readonly device: string;
  readonly features: number;
  readonly port: PortSpec;
  readonly path: string;
  readonly reconnect: boolean;
  readonly allowUnverified: boolean;
  readonly allowUnsealed: boolean;
  /** Longest spin; 0: poll, Infinity: busy-wait, with no kicks at all. */
  readonly spinUs: number;
  readonly pauseUs: number;
  readonly statistics: boolean;
  readonly verbosity: number;
  readonly antiSpoof?: SpoofRules;
  /** The process becomes another user once all is open. */
  readonly losesRights?: boolean;
}

const main = parentPort!;
const pulse = startPulse();
// This thread is older than the main thread's own promise.
forbidNewPrivileges();
const options = takeTask<ProxyWorkerOptions & { readonly wakeFd: number }>(main);
if (options.losesRights === true) emptyBoundingSet();
const tell = (message: ToMain): void => main.postMessage(message);
const print = (text: string): void => tell({ kind: "print", text });
const log = limitedLog(tell);

/** Between reports of rates, and as long without a request before one. */
const REPORT_MS = 2000;
/** Lines that a guest can cause with `-v -v`, a second. */
const TRACES_PER_SECOND = 1000;

/** What is printed from time to time, where it is asked for. */
class Reports {
  readonly trace = new LineLimit<string>(
    TRACES_PER_SECOND,
    (text) => print(`${text}\n`),
    (suppressed) => `suppressed ${suppressed} more lines`,
  );
  readonly #frontend: BackendConnection;
  readonly #pair: QueuePair;
  readonly #rates: RateReport;
  #reportedAt = performance.now();

  constructor(frontend: BackendConnection, pair: QueuePair) {
    this.#frontend = frontend;
    this.#pair = pair;
    this.#rates = new RateReport(pair);
  }

  housekeeping(): void {
    const now = performance.now();
    this.trace.tick(now);
    log.tick(now);
    const { backend, lastMessageAt } = this.#frontend;
    if (!backend.running || now - lastMessageAt < REPORT_MS || now - this.#reportedAt < REPORT_MS)
      return;
    this.#reportedAt = now;
    if (options.statistics) print(this.#rates.next());
    if (options.verbosity >= 2) print(dumpQueues(this.#pair));
  }
}

function signalUpgrade({ backend }: BackendConnection): void {
  if (backend.signalUpgrade()) return;
  log.line({ kind: "log", level: "warn", text: "no upgrade: the VMM gave no descriptor for it" });
}

function serve(ports: WorkerPorts): void {
  const device = findDevice(options.device);
  if (device === undefined) throw new Error(`no device "${options.device}"`);
  let problem = "";
  const trace = options.verbosity >= 2 ? (text: string) => reports.trace.line(text) : undefined;
  const pair = new QueuePair({
    ...{ port: ports.ports[0], txCounters: ports.txCounters[0], rxVector: 0, txVector: 1 },
    fire: (vector) => {
      frontend.backend.fire(vector);
      trace?.(`interrupt ${frontend.backend.queues[vector].name}`);
    },
  });
  const frontend: BackendConnection = new BackendConnection({
    ...{ device, pair, features: options.features, path: options.path },
    reconnect: options.reconnect,
    allowUnverified: options.allowUnverified,
    allowUnsealed: options.allowUnsealed,
    busy: options.spinUs === Number.POSITIVE_INFINITY,
    log: (level, text) => log.line({ kind: "log", level, text }),
    ended: (why) => {
      problem = why;
      loop.stop();
    },
    ...(trace === undefined ? {} : { trace }),
  });
  const reports = new Reports(frontend, pair);
  const { backend } = frontend;
  const complaints = new Complaints(
    [
      ...droppedIn([pair], (name) =>
        name === "dropBadAddress" ? unsharedMemory(backend.memory.ranges) : "",
      ),
      ...counted(backend.counters, { refused: "requests refused" }, () => backend.lastRefusal),
      ...counted(backend.counters, { interruptsDropped: "interrupts without a descriptor" }),
    ],
    (text) => log.line({ kind: "log", level: "warn", text }),
  );
  const commands = new WorkerControl(
    frontend,
    { port: main, wakeFd: options.wakeFd },
    (command) => {
      if (command.kind === "stop") loop.stop();
      else if (command.kind === "signal-upgrade") signalUpgrade(frontend);
      else if (command.kind === "set-port") {
        const error = ports.exchange(command.port, [pair], loop);
        tell({ kind: "changed", id: command.id, error });
      } else if (command.kind === "status") {
        const status = proxyStatus(frontend, device.name, pair, loop.loopStats);
        tell({ kind: "status", id: command.id, status });
      }
    },
  );
  const loop: Loop = new Loop({
    ...{ pairs: [pair], control: commands, spinUs: options.spinUs, pauseUs: options.pauseUs },
    pulse,
    housekeeping: () => {
      commands.receive();
      for (const text of ports.notices()) log.line({ kind: "log", level: "warn", text });
      complaints.tick();
      reports.housekeeping();
    },
  });
  tell({ kind: "ready" });
  try {
    loop.run();
  } finally {
    frontend.close();
    loop.close();
  }
  const { unsentAtStop } = frontend.backend.counters;
  if (unsentAtStop > 0) {
    tell({
      kind: "log",
      level: "warn",
      text: `${unsentAtStop} packets could not be sent before the stop`,
    });
  }
  if (problem !== "") throw Object.assign(new Error(problem), { code: "PROTOCOL" });
}

try {
  const metadata = (findDevice(options.device)?.features ?? 0) !== 0;
  const ports = new WorkerPorts({ ...options, pairs: 1, metadata });
  try {
    serve(ports);
  } finally {
    ports.close();
  }
  tell({ kind: "stopped" });
} catch (error) {
  const { message, code, stack } = error as Error & { code?: string };
  tell({ kind: "failed", message, expected: code !== undefined, stack: stack ?? "" });
}

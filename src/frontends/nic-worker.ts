/**
 * The worker of one NIC: everything of it lives here, on one thread, in one loop. The thread that started
 * it talks to it by messages (worker-control.ts).
 */
import { parentPort } from "node:worker_threads";
import { findFormat } from "../devices/registry.ts";
import { DEFAULT_SPIN_US, Loop } from "../engine/loop.ts";
import { QueuePair } from "../engine/pair.ts";
import type { PortSpec } from "../net/create.ts";
import { Nic } from "../nic/nic.ts";
import { nicStatus } from "../nic/status.ts";
import { emptyBoundingSet, forbidNewPrivileges, setTimeSlice } from "../os/process.ts";
import { COUNTERS } from "../vfio-user/counters.ts";
import { Complaints, counted, droppedIn, pick, unsharedMemory } from "./complaints.ts";
import { limitedLog } from "./line-limit.ts";
import { NicEvents } from "./nic-events.ts";
import type { NicWorkerData, ToMain } from "./nic-messages.ts";
import { startPulse } from "./pulse.ts";
import { VfioUserFrontend } from "./vfio-user.ts";
import { takeTask } from "./waiting-worker.ts";
import { WorkerControl } from "./worker-control.ts";
import { WorkerPorts } from "./worker-ports.ts";

const main = parentPort!;
// This thread is older than the main thread's own promise.
forbidNewPrivileges();
const pulse = startPulse();
const options = takeTask<NicWorkerData>(main);
if (options.losesRights === true) emptyBoundingSet();
/** Do packets of this device carry metadata? */
const metadata = (findFormat(options.device)?.features ?? 0) !== 0;
const tell = (message: ToMain): void => main.postMessage(message);
const log = limitedLog(tell);

/** The shortest that Linux grants. */
const TIME_SLICE_NS = 100_000;

/** Counters of refusals and losses, as they read in the log. */
const REFUSED_BY_NIC = {
  register: "register writes refused",
  doorbell: "doorbells refused",
  programWindow: "writes to the program window refused",
  context: "contexts refused",
  blob: "requests for the program blob refused",
  features: "feature selections refused",
  enable: "enables refused, or the guest gave up",
} as const;
const REFUSED_BY_SERVER = pick(COUNTERS, [
  ...(["refusedMalformed", "refusedUnknown", "refusedState", "refusedRegion"] as const),
  ...(["refusedDma", "refusedIrq", "refusedReply"] as const),
]);
const LOST_BY_SERVER = pick(COUNTERS, ["strayDescriptors", "interruptsDropped"]);

function serve(ports: WorkerPorts): void {
  const device = findFormat(options.device);
  if (device === undefined) throw new Error(`no device "${options.device}"`);
  // Pairs are made before the NIC, and fire through it.
  let fire: (vector: number) => void = () => {};
  const pairs = ports.ports.map(
    (port, i) =>
      new QueuePair({
        port,
        txCounters: ports.txCounters[i],
        rxVector: i,
        txVector: options.nic.pairs + i,
        fire: (vector) => fire(vector),
      }),
  );
  const nic = new Nic({ ...options.nic, device }, pairs);
  fire = (vector) => nic.host?.fire(vector);
  const frontend = new VfioUserFrontend(nic, {
    socketPath: options.socketPath,
    access: options.access,
    pciDevice: options.pciDevice,
    interrupts: options.interrupts,
    answerDelayMs: options.answerDelayMs,
    handled: () => events.look(),
    allowUnsealed: options.allowUnsealed,
    log: (text) => log.line({ kind: "log", level: "info", text }),
    onWarning: (code, text) => log.line({ kind: "log", level: "warn", text: `${text} [${code}]` }),
  });
  const events = new NicEvents(nic, (level, text) => log.line({ kind: "log", level, text }));
  const status = () => ({
    ...nicStatus(nic, loop.loopStats, frontend.server.counters),
    step: frontend.step,
  });
  const commands = new WorkerControl(
    frontend,
    { port: main, wakeFd: options.wakeFd },
    (command) => {
      if (command.kind === "stop") loop.stop();
      else if (command.kind === "programs") {
        nic.ship(command.sets);
        frontend.letIn();
      } else if (command.kind === "set-port") {
        tell({ kind: "changed", id: command.id, error: setPorts(command.port) });
      } else if (command.kind === "set-mtu") {
        tell({ kind: "changed", id: command.id, error: nic.setMtu(command.mtu) });
      } else if (command.kind === "status") {
        tell({ kind: "status", id: command.id, status: status() });
      }
    },
  );
  const setPorts = (spec: PortSpec): string | null => {
    const error = ports.exchange(spec, pairs, loop);
    nic.followLink();
    // Another port is no event of the old one.
    portsUp = arePortsUp();
    return error;
  };
  const arePortsUp = () => pairs.every((pair) => pair.port.linkUp);
  let portsUp = arePortsUp();
  const { server } = frontend;
  const complaints = new Complaints(
    [
      ...droppedIn(pairs, (name) =>
        name === "dropBadAddress" ? unsharedMemory(nic.host?.memory.ranges ?? []) : "",
      ),
      ...counted(nic.refused, REFUSED_BY_NIC, (name) => nic.refusals[name] ?? ""),
      ...counted(server.counters, REFUSED_BY_SERVER, () => server.lastRefusal),
      ...counted(server.counters, LOST_BY_SERVER),
    ],
    (text) => log.line({ kind: "log", level: "warn", text }),
  );
  const loop: Loop = new Loop({
    pairs,
    control: commands,
    pulse,
    spinUs: options.spinUs ?? DEFAULT_SPIN_US,
    housekeeping: () => {
      commands.receive();
      complaints.tick();
      log.tick();
      for (const text of ports.notices()) log.line({ kind: "log", level: "warn", text });
      nic.followLink();
      events.look();
      events.lookAtLink();
      const up = arePortsUp();
      if (up !== portsUp) {
        portsUp = up;
        tell({
          kind: "log",
          level: "warn",
          text: `${pairs[0].port.name} ${up ? "is back" : "is gone"}`,
        });
      }
    },
  });
  // Packets wait for this thread, and it is soon done: where the kernel can, it runs as soon as it wakes.
  setTimeSlice(TIME_SLICE_NS);
  tell({ kind: "ready" });
  try {
    loop.run();
  } finally {
    frontend.close();
    loop.close();
  }
}

try {
  const ports = new WorkerPorts({ ...options, pairs: options.nic.pairs, metadata });
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

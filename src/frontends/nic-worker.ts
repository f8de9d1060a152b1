/**
 * The worker of one NIC: everything of it lives here, on one thread, in one loop. The thread that started
 * it talks to it by messages (worker-control.ts).
 */
import { parentPort, workerData } from "node:worker_threads";
import { findDevice } from "../devices/index.ts";
import { DEFAULT_SPIN_US, Loop } from "../engine/loop.ts";
import { QueuePair } from "../engine/pair.ts";
import { openPorts, type PortSpec } from "../net/create.ts";
import type { Port } from "../net/port.ts";
import { Nic } from "../nic/nic.ts";
import { nicStatus } from "../nic/status.ts";
import { setTimeSlice } from "../os/process.ts";
import type { NicWorkerData, ToMain } from "./nic-messages.ts";
import { VfioUserFrontend } from "./vfio-user.ts";
import { WorkerControl } from "./worker-control.ts";

const options = workerData as NicWorkerData;
/** Do packets of this device carry metadata? */
const metadata = (findDevice(options.device)?.features ?? 0) !== 0;
const main = parentPort!;
const tell = (message: ToMain): void => main.postMessage(message);

/** The shortest that Linux grants. */
const TIME_SLICE_NS = 100_000;

/** The longest queue of a TAP is a thousand packets; a source has no end. */
const MAX_WAITING = 2048;

/** What waits in a port that is about to be let go still goes to the guest, as far as it has buffers. */
function takeWaiting(pair: QueuePair): void {
  for (let left = MAX_WAITING; left > 0; ) {
    const moved = pair.fillRx();
    if (moved === 0) return;
    left -= moved;
  }
}

function serve(ports: Port[]): void {
  const device = findDevice(options.device);
  if (device === undefined) throw new Error(`no device "${options.device}"`);
  // Pairs are made before the NIC, and fire through it.
  let fire: (vector: number) => void = () => {};
  const pairs = ports.map(
    (port, i) =>
      new QueuePair({
        port,
        rxVector: i,
        txVector: ports.length + i,
        fire: (vector) => fire(vector),
      }),
  );
  const nic = new Nic({ ...options.nic, device }, pairs);
  fire = (vector) => nic.host?.fire(vector);
  const frontend = new VfioUserFrontend(nic, {
    socketPath: options.socketPath,
    pciDevice: options.pciDevice,
    answerDelayMs: options.answerDelayMs,
    log: (text) => tell({ kind: "log", level: "info", text }),
    onWarning: (code, text) => tell({ kind: "log", level: "warn", text: `${text} [${code}]` }),
  });
  const status = () => nicStatus(nic, loop.moods, frontend.server.counters);
  const commands = new WorkerControl(
    frontend,
    { port: main, wakeFd: options.wakeFd },
    (command) => {
      if (command.kind === "stop") loop.stop();
      else if (command.kind === "set-port") {
        tell({ kind: "port-set", id: command.id, error: setPorts(command.port) });
      } else tell({ kind: "status", id: command.id, status: status() });
    },
  );
  const setPorts = (spec: PortSpec): string | null => {
    try {
      const next = openPorts(spec, pairs.length, metadata);
      for (const pair of pairs) takeWaiting(pair);
      loop.forgetPorts();
      for (const [i, pair] of pairs.entries()) pair.setPort(next[i]);
      for (const port of ports.splice(0, ports.length, ...next)) port.close();
      nic.followLink();
      return null;
    } catch (error) {
      return (error as Error).message;
    }
  };
  let portsUp = true;
  const loop: Loop = new Loop({
    pairs,
    control: commands,
    spinUs: options.spinUs ?? DEFAULT_SPIN_US,
    housekeeping: () => {
      commands.receive();
      nic.followLink();
      const up = pairs.every((pair) => pair.port.linkUp);
      if (up !== portsUp) {
        portsUp = up;
        tell({
          kind: "log",
          level: "warn",
          text: `${ports[0].name} ${up ? "is back" : "is gone"}`,
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
  const ports = openPorts(options.port, options.nic.pairs, metadata);
  try {
    serve(ports);
  } finally {
    for (const port of ports) port.close();
  }
  tell({ kind: "stopped" });
} catch (error) {
  const { message, code, stack } = error as Error & { code?: string };
  tell({ kind: "failed", message, expected: code !== undefined, stack: stack ?? "" });
}

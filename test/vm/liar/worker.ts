/** The thread of a lying host: one NIC, one loop, and a few words shared with the test (modes.ts). */
import { parentPort, workerData } from "node:worker_threads";
import { programSets } from "../../../src/devices/sets.ts";
import { sring } from "../../../src/devices/sring/index.ts";
import { CONTROL_TAG, type Control, Loop } from "../../../src/engine/loop.ts";
import { QueuePair } from "../../../src/engine/pair.ts";
import { openPorts, type PortSpec } from "../../../src/net/create.ts";
import { Nic } from "../../../src/nic/nic.ts";
import type { Epoll } from "../../../src/os/epoll.ts";
import { VfioUserServer } from "../../../src/vfio-user/index.ts";
import { Liar, LiarsPort } from "./lying-device.ts";
import { STOP } from "./modes.ts";
import { Random } from "./random.ts";

export interface LiarWorkerData {
  readonly socketPath: string;
  readonly port: PortSpec;
  readonly seed: number;
  /** SHARED_BYTES */
  readonly shared: SharedArrayBuffer;
}

/** So often the loop looks at the shared words. */
const LOOK_MS = 4;

class LyingFrontend implements Control {
  readonly timeoutMs = LOOK_MS;
  readonly #server: VfioUserServer;
  readonly #nic: Nic;
  readonly #liar: Liar;

  constructor(nic: Nic, liar: Liar, socketPath: string) {
    this.#nic = nic;
    this.#liar = liar;
    this.#server = new VfioUserServer(liar.device(), { socketPath });
  }

  register(epoll: Epoll): void {
    this.#server.register(epoll, CONTROL_TAG);
  }

  handle(): number {
    this.#server.handleTimers();
    const messages = this.#server.handleReadable();
    if (messages > 0) this.#nic.memoryChanged();
    this.#liar.tick();
    return messages;
  }

  close(): void {
    this.#server.close();
  }
}

function serve({ port, seed, socketPath, shared }: LiarWorkerData): void {
  const words = new Int32Array(shared);
  const ports = openPorts(port, 1, false).map((each) => new LiarsPort(each));
  let fire: (vector: number) => void = () => {};
  const pairs = ports.map(
    (each) =>
      new QueuePair({ port: each, rxVector: 0, txVector: 1, fire: (vector) => fire(vector) }),
  );
  const nic = new Nic(
    {
      device: sring,
      pairs: 1,
      rxBufs: 256,
      txBufs: 256,
      mac: Uint8Array.of(0x52, 0x54, 0, 0x11, 0xa5, 0x01),
      mtu: 1500,
      linkSpeed: 0,
      doorbellSize: 8,
    },
    pairs,
  );
  nic.ship(programSets(sring, nic.config));
  fire = (vector) => nic.host?.fire(vector);
  const liar = new Liar(nic, new Random(seed), words);
  for (const each of ports) each.liar = liar;
  const frontend = new LyingFrontend(nic, liar, socketPath);
  const loop: Loop = new Loop({
    pairs,
    control: frontend,
    housekeeping: () => {
      nic.followLink();
      if (Atomics.load(words, STOP) !== 0) loop.stop();
    },
  });
  parentPort?.postMessage("ready");
  loop.run();
  frontend.close();
  loop.close();
  for (const each of ports) each.close();
}

serve(workerData as LiarWorkerData);

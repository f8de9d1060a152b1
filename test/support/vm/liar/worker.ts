/**
 * The thread of a lying host: one NIC, one loop, and a few words shared with the test (modes.ts).
 */
import { parentPort, workerData } from "node:worker_threads";
import { programSets } from "../../../../src/devices/program-set.ts";
import { findFormat } from "../../../../src/devices/registry.ts";
import { CONTROL_TAG, type Control, Loop } from "../../../../src/engine/loop.ts";
import { QueuePair } from "../../../../src/engine/pair.ts";
import { openPorts, type PortSpec } from "../../../../src/net/create.ts";
import { Nic } from "../../../../src/nic/nic.ts";
import type { Epoll } from "../../../../src/os/epoll.ts";
import { VfioUserServer } from "../../../../src/vfio-user/index.ts";
import { Liar, LiarsPort } from "./lying-device.ts";
import { STOP } from "./modes.ts";
import { Random } from "./random.ts";

export interface LiarWorkerData {
  readonly socketPath: string;
  readonly port: PortSpec;
  readonly seed: number;
  readonly device: string;
  readonly pairs: number;
  /** SHARED_BYTES */
  readonly shared: SharedArrayBuffer;
}

/** Period in which the loop polls the shared words. */
const LOOK_MS = 4;
/** A word that is never notified. */
const NEVER = new Int32Array(new SharedArrayBuffer(4));

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
    if (this.#liar.mode === "mute") return this.#keepSilent();
    this.#server.handleTimers();
    const messages = this.#server.handleReadable();
    if (messages > 0) this.#nic.memoryChanged();
    this.#liar.tick();
    return messages;
  }

  /** Leaves the guest's requests unanswered and does nothing else, so that it takes no CPU time. */
  #keepSilent(): number {
    this.#liar.told("mute");
    Atomics.wait(NEVER, 0, 0, LOOK_MS);
    return 0;
  }

  close(): void {
    this.#server.close();
  }
}

function serve({
  port,
  seed,
  device: name,
  pairs: count,
  socketPath,
  shared,
}: LiarWorkerData): void {
  const device = findFormat(name);
  if (device === undefined) throw new Error(`unknown device ${name}`);
  const words = new Int32Array(shared);
  const ports = openPorts(port, count, false).map((each) => new LiarsPort(each));
  let fire: (vector: number) => void = () => {};
  const pairs = ports.map(
    (each, i) =>
      new QueuePair({
        port: each,
        rxVector: i,
        txVector: count + i,
        fire: (vector) => fire(vector),
      }),
  );
  const nic = new Nic(
    {
      device,
      pairs: count,
      rxBufs: 256,
      txBufs: 256,
      mac: Uint8Array.of(0x52, 0x54, 0, 0x11, 0xa5, count),
      mtu: 1500,
      linkSpeed: 0,
      doorbellSize: 8,
    },
    pairs,
  );
  nic.ship(programSets(device, nic.config));
  fire = (vector) => nic.host?.fire(vector);
  const liar = new Liar(nic, new Random(seed), words);
  for (const each of ports) each.liar = liar;
  const frontend = new LyingFrontend(nic, liar, socketPath);
  const loop: Loop = new Loop({
    pairs,
    control: frontend,
    housekeeping: () => {
      nic.link.follow();
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

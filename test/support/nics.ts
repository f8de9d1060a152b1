/** For tests of NICs in workers of this process, with user-space guests behind them. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { Worker } from "node:worker_threads";
import { WorkerHandle } from "../../src/control/handle.ts";
import { WaitingWorker } from "../../src/control/waiting-worker.ts";
import { programSets } from "../../src/devices/program-set.ts";
import { sring } from "../../src/devices/sring/host.ts";
import { GuestDriver } from "../../src/guest/driver.ts";
import { LocalMemory } from "../../src/guest/memory.ts";
import { VfioUserClient } from "../../src/guest/vfio-user-client.ts";
import type { PortSpec } from "../../src/net/create.ts";
import type { NicStatus } from "../../src/nic/status.ts";

const CONFIG = {
  ...{ pairs: 1, rxBufs: 64, txBufs: 64, mtu: 1500, linkSpeed: 10_000, doorbellSize: 8 },
  mac: Uint8Array.of(2, 0, 0, 0, 0, 1),
};

/** Keeps the thread, so that a test can end it. */
export class KeptWorker extends WaitingWorker {
  thread: Worker | null = null;

  override begin(task: object): Worker {
    this.thread = super.begin(task);
    return this.thread;
  }
}

/** A NIC whose packets come from `port`. */
export class TestNic {
  readonly name: string;
  readonly handle: WorkerHandle;
  readonly log: string[] = [];
  readonly #socket: string;

  constructor(folder: string, name: string, port: PortSpec, worker: WaitingWorker) {
    this.name = name;
    this.#socket = join(folder, name);
    this.handle = new WorkerHandle({
      name,
      worker,
      task: { device: "sring", nic: CONFIG, port, socketPath: this.#socket, pciDevice: 9 },
      log: (_level, text) => this.log.push(text),
    });
  }

  get ended(): Promise<void> {
    return this.handle.ended;
  }

  stop(): Promise<void> {
    return this.handle.stop();
  }

  ship(): Promise<void> {
    return this.handle.request("ship", programSets(sring, CONFIG));
  }

  status(): Promise<NicStatus> {
    return this.handle.request("status");
  }

  attach(): TestGuest {
    return new TestGuest(this.#socket);
  }
}

/** A guest of one NIC; its memory is this process's. */
export class TestGuest {
  readonly client: VfioUserClient;
  readonly #memory = new LocalMemory(4 << 20);
  readonly #driver: GuestDriver;

  constructor(socket: string) {
    this.client = new VfioUserClient(socket, this.#memory, 3);
    this.#driver = new GuestDriver(this.client, this.#memory);
    this.#driver.open();
  }

  /** Sends and receives at least `count` packets. */
  async move(count: number): Promise<void> {
    const frame = new Uint8Array(60);
    let [sent, received] = [0, 0];
    for (let n = 0; sent < count || received < count; n++) {
      assert.ok(n < 60_000, `${sent} sent, ${received} received of ${count}`);
      for (let i = 0; i < 32 && sent < count && this.#driver.send(0, frame); i++) sent++;
      this.#driver.receive(0, () => received++);
      await sleep(1);
    }
  }

  close(): void {
    this.client.close();
    this.#memory.close();
  }
}

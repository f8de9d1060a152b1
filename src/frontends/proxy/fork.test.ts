/**
 * The original QEMU fork as it was seen on the wire: in which order its requests come, and which it
 * leaves out. Most refusals end it, with the machine. Whatever a guest and an operator do in turn,
 * nothing is refused, and packets flow whenever the guest is up.
 */
import assert from "node:assert/strict";
import { after, test } from "node:test";
import fc from "fast-check";
import { Machine } from "../../../test/support/proxy.ts";
import { FEATURES, REG } from "../../abi/index.ts";

const ALL = Object.values(FEATURES).reduce((all, bit) => all | bit, 0);

after(() => Machine.cleanUp());

class Fork extends Machine {
  loaded = false;
  up = false;
  #features = 0;
  #exchanged = 0;

  /** A: the machine starts with a backend. */
  start(device: string): void {
    this.startBackend("--reconnect", "-d", device, "-O", "txcsum,rxcsum,tso,lro");
    this.boot();
  }

  /** B. */
  load(): void {
    if (this.loaded) return;
    this.loadDriver();
    this.driver.register();
    this.#select(this.offer.features & ALL);
    this.loaded = true;
  }

  #select(features: number): void {
    this.#features = features;
    this.model.write(0, REG.FEATURES, features);
  }

  /** C and D. */
  switch(): void {
    if (!this.loaded) return;
    if (this.up) this.driver.close();
    else this.driver.reopen();
    this.up = !this.up;
  }

  /** E. */
  unload(): void {
    if (!this.loaded) return;
    if (this.up) this.driver.close();
    for (const queue of [0, 1]) this.hypervisor.setContext(queue, 0);
    this.#down();
  }

  #down(): void {
    this.loaded = false;
    this.up = false;
  }

  /** F and G: the backend goes, another one comes, and the guest opens its NIC anew. */
  upgrade(): void {
    this.hypervisor.disconnect();
    assert.ok(this.hypervisor.accept(20_000), "a backend connects");
    this.setMemory();
    this.handshake(this.#features);
    if (!this.loaded) return;
    if (this.up) for (const queue of [0, 1]) this.hypervisor.setInterrupt(queue, true);
    this.reinitialise();
  }

  /** J: the guest opens its NIC anew, with the backend that is there. */
  reinitialise(): void {
    if (!this.loaded) return;
    // The new backend is told to disable what it was never told to enable.
    if (this.up) this.driver.close();
    this.loadDriver();
    this.driver.register();
    if (this.up) this.driver.reopen();
  }

  /** H: the driver's shutdown hook leaves contexts behind. */
  reboot(): void {
    if (this.up) this.driver.disable();
    this.#down();
  }

  /** I: nothing is said, and the next kernel uses the memory for something else. */
  reset(): void {
    const [range] = this.memory.ranges;
    if (this.loaded) {
      for (const queue of [0, 1]) this.driver.contextOf(queue).fill(0x5a, 2096);
    }
    this.memory.bytes(range.address, 4096).fill(0xff);
    for (const queue of [0, 1]) this.hypervisor.kick(queue);
    this.#down();
  }

  /** `ethtool -K`: the driver writes its features while it is up. */
  select(features: number): void {
    if (this.loaded) this.#select(this.offer.features & features);
  }

  check(): void {
    if (this.up) this.exchange(this.#exchanged++, 3);
    assert.equal(this.model?.refused ?? 0, 0, "or the fork would have ended itself");
  }
}

const ACTIONS: Readonly<Record<string, (fork: Fork) => void>> = {
  load: (fork) => fork.load(),
  switch: (fork) => fork.switch(),
  unload: (fork) => fork.unload(),
  upgrade: (fork) => fork.upgrade(),
  reinitialise: (fork) => fork.reinitialise(),
  reboot: (fork) => fork.reboot(),
  reset: (fork) => fork.reset(),
  "all features": (fork) => fork.select(ALL),
  "no features": (fork) => fork.select(0),
  "memory in one region": (fork) => fork.setMemory(1),
  "memory in four regions": (fork) => fork.setMemory(4),
};

function run(fork: Fork, actions: readonly string[]): void {
  for (const action of actions) {
    ACTIONS[action](fork);
    fork.check();
  }
}

function up(fork: Fork): void {
  if (!fork.loaded) run(fork, ["load"]);
  if (!fork.up) run(fork, ["switch"]);
  assert.ok(fork.up);
}

for (const device of ["sring_gso", "vring_packed"]) {
  test(`${device}: packets flow after each thing that the fork does while they flow`, async () => {
    const fork = new Fork(`each-${device}`, { bufs: 16, mib: 64 });
    fork.start(device);
    up(fork);
    for (const action of Object.keys(ACTIONS)) {
      run(fork, [action]);
      up(fork);
    }
    fork.backend.kill("SIGTERM");
    await fork.end();
  });

  test(`${device}: nothing is refused when all of it comes in any order`, async () => {
    const fork = new Fork(`any-${device}`, { bufs: 16, mib: 64 });
    fork.start(device);
    fc.assert(
      fc.property(
        fc.array(fc.constantFrom(...Object.keys(ACTIONS)), { maxLength: 12, size: "max" }),
        (actions) => {
          run(fork, actions);
          up(fork);
        },
      ),
      { numRuns: 20, endOnFailure: true },
    );
    fork.backend.kill("SIGTERM");
    await fork.end();
  });
}
